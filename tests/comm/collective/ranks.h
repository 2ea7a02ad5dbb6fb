// Runs the ranks of a communicator as threads or as forked processes, for the tests of the collectives.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "comm/collective/group.h"

namespace lorikeet::comm {

enum class RankKind { local_threads, gloo_threads, gloo_processes };

std::string name_of(RankKind kind);
inline std::ostream& operator<<(std::ostream& out, RankKind kind) {
  return out << name_of(kind);
}

// What one rank does; empty when all was right, else what was wrong. A CollectiveError that it lets out is wrong.
using RankBody = std::function<std::string(Collective&)>;

// One report per rank. A process that dies or stops says "killed by signal N"; those that stop are killed once all
// others have ended.
std::vector<std::string> run_ranks(RankKind kind, int size, const RankBody& body, const GlooOptions& options = {});

}  // namespace lorikeet::comm
