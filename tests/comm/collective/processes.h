// Runs the ranks of a group as forked processes.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace lorikeet::comm {

// Forks `size` children; child i makes report(i) and exits. One report per child. A child that dies or stops says
// "killed by signal N"; those that stop are killed once all others have ended.
std::vector<std::string> run_processes(int size, const std::function<std::string(int rank)>& report);

}  // namespace lorikeet::comm
