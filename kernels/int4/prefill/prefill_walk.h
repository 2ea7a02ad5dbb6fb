// How the int4 product of warpgroups' matrix steps for many tokens is cut up (kernels/int4/prefill/int4_prefill.h): what
// the host's plan and the kernel must agree on.
//
// The outputs are cut into areas of kPrefillTiles tiles and some columns (tokens); areas of the same tiles follow each
// other. An area is made by a cluster of one block or two. Of the first areas each cluster makes as many as any other,
// alone. The units of the rest, one area behind the other, are shared out among the clusters, so that each walks over as
// many as any other: it ends an area that an earlier cluster has begun, makes some alone, and begins one that a later
// cluster ends.
#pragma once

#include <cstdint>

#include "kernels/int4/prefill/shared_walk.h"

namespace lorikeet::kernels::int4 {

inline constexpr int kPrefillTiles = 16;
inline constexpr int kMostBlocks = 2;  // of a cluster
// Units [begin, end) of an area.
struct PrefillPart {
  int32_t area = 0, begin = 0, end = 0;
};

struct PrefillDivision {
  int32_t areas = 0, units = 0;  // units of an area
  int32_t clusters = 1;
  int32_t alone = 0;  // areas that a cluster makes alone before the rest is shared; one fewer where areas run out

  constexpr int32_t first_shared() const { return alone * clusters < areas ? alone * clusters : areas; }
  // Whether every area is shared, in parts that are equal but for a unit, a cluster having one.
  constexpr bool equal_parts() const { return alone == 0 && clusters % areas == 0; }
  constexpr int64_t shared_steps() const { return static_cast<int64_t>(areas - first_shared()) * units; }
};

// The parts of one cluster in the order in which it makes them: first what is shared, so that others need not wait for
// it.
class PrefillWalk {
 public:
  constexpr PrefillWalk(const PrefillDivision& division, int cluster)
      : at_(static_cast<int32_t>(walk_begin(division.shared_steps(), cluster, division.clusters))),
        end_(static_cast<int32_t>(walk_begin(division.shared_steps(), cluster + 1, division.clusters))),
        area_(cluster) {}

  constexpr bool ended(const PrefillDivision& division) const {
    return at_ >= end_ && area_ >= division.first_shared();
  }

  // Whether there is another.
  constexpr bool next(const PrefillDivision& division, PrefillPart& part) {
    if (at_ < end_) {
      const int32_t area = at_ / division.units;
      part.area = division.first_shared() + area;
      part.begin = at_ - area * division.units;
      part.end = part.begin + (end_ - at_);
      if (part.end > division.units) part.end = division.units;
      at_ += part.end - part.begin;
      return true;
    }
    if (area_ >= division.first_shared()) return false;
    part.area = area_;
    part.begin = 0;
    part.end = division.units;
    area_ += division.clusters;
    return true;
  }

 private:
  int32_t at_, end_;  // steps that are shared
  int32_t area_;      // the next to make alone
};

}  // namespace lorikeet::kernels::int4
