# Builds for Macs with Apple silicon on another system. The compilers are wrappers of Clang that
# stand in CROSS_BUILD_TOOLS; Apple's frameworks are the stubs beside this file.
set(CMAKE_SYSTEM_NAME Darwin)
set(CMAKE_SYSTEM_PROCESSOR arm64)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES CROSS_BUILD_TOOLS)

set(CMAKE_C_COMPILER "${CROSS_BUILD_TOOLS}/cc")
set(CMAKE_CXX_COMPILER "${CROSS_BUILD_TOOLS}/c++")
set(CMAKE_AR "${CROSS_BUILD_TOOLS}/ar")
set(CMAKE_RANLIB "${CROSS_BUILD_TOOLS}/ranlib")

# Tools run here; libraries and packages come from where they are told to.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY BOTH)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE BOTH)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)
