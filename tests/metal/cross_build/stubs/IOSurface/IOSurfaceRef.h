// The names of Apple's IOSurface that metal-cpp speaks of.
#pragma once

typedef struct __IOSurface* IOSurfaceRef;
