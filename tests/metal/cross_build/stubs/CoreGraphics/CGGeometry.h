// The names of Apple's CoreGraphics that metal-cpp speaks of.
#pragma once

typedef struct CGSize {
  double width, height;
} CGSize;
