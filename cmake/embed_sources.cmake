# Writes OUTPUT, a C++ file that holds the text of every shader source: run as
#   cmake -DROOT=csrc -DFILES="a;b" -DOUTPUT=file.cpp -P embed_sources.cmake
# MLX compiles them on the user's machine, where only the extension is at hand.
cmake_minimum_required(VERSION 3.27)

set(entries "")
set(count 0)
foreach(file IN LISTS FILES)
  file(READ "${ROOT}/${file}" text)
  # MLX hands sources to Metal as ASCII: any other byte breaks the compilation there.
  string(REGEX MATCH "^[\t\n -~]*" plain "${text}")
  if(NOT plain STREQUAL text)
    string(REGEX MATCHALL "\n" lines_before "${plain}")
    list(LENGTH lines_before line)
    math(EXPR line "${line} + 1")
    message(FATAL_ERROR "csrc/${file}:${line}: shader sources must be plain ASCII; this line holds "
                        "another byte. Replace it.")
  endif()
  # Reading drops carriage returns and ends at a zero byte; both show in the size.
  string(LENGTH "${text}" length)
  file(SIZE "${ROOT}/${file}" size)
  if(NOT length EQUAL size)
    message(FATAL_ERROR "csrc/${file}: shader sources must hold neither carriage returns nor zero "
                        "bytes; ${size} bytes came, ${length} of them text. Remove the others.")
  endif()
  string(FIND "${text}" ")SHADER\"" end)
  if(NOT end EQUAL -1)
    message(FATAL_ERROR "csrc/${file}: a shader source must not hold )SHADER\", which ends the "
                        "string that it is embedded in. Write it differently.")
  endif()
  string(APPEND entries "    {\"${file}\", R\"SHADER(${text})SHADER\"},\n")
  math(EXPR count "${count} + 1")
endforeach()
file(
  WRITE "${OUTPUT}"
  "// Made from the shader sources by cmake/embed_sources.cmake.
#include \"metal/sources.h\"

namespace mlx_esm_kernels::metal {

const SourceFile kSourceFiles[] = {
${entries}};
const int kSourceFileCount = ${count};

}  // namespace mlx_esm_kernels::metal
")
