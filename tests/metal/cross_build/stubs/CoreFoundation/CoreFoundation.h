// The names of Apple's CoreFoundation that metal-cpp speaks of.
#pragma once

typedef double CFTimeInterval;
