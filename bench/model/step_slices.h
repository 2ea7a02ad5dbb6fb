// decode_step_gpu_bench --full: the whole table, a slice of time at a call.
#pragma once

#include "bench/model/step_bench_options.h"
#include "bench/model/step_floors.h"
#include "comm/collective/peer_collective.h"

namespace lorikeet::model {

// Measures points that options.full has no figures of, one at least, until options.seconds have passed, and prints the
// table as far as it is there. 0: the table is whole, 1: the file cannot be written, 2: call again.
int run_slice(const bench::StepBenchOptions& options, const bench::StepFloors& floors, comm::Rendezvous& store);

}  // namespace lorikeet::model
