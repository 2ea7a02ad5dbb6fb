#include "tests/comm/collective/ranks.h"

#include <memory>
#include <thread>
#include <utility>

#include "tests/comm/collective/file_rendezvous.h"
#include "tests/comm/collective/processes.h"

namespace lorikeet::comm {
namespace {

std::string report_of(Collective& collective, const RankBody& body) {
  try {
    return body(collective);
  } catch (const CollectiveError& error) {
    return std::string("threw ") + error.what();
  }
}

std::string gloo_report(const std::filesystem::path& directory, GlooOptions options, int rank, int size,
                        const RankBody& body) {
  FileRendezvous store(directory);
  options.rank = rank;
  options.size = size;
  options.prefix = "test";
  Result<std::unique_ptr<Collective>> collective = make_gloo_collective(store, options);
  if (!collective) return collective.error().message;
  return report_of(**collective, body);
}

}  // namespace

std::string name_of(RankKind kind) {
  switch (kind) {
    case RankKind::local_threads:
      return "LocalThreads";
    case RankKind::gloo_threads:
      return "GlooThreads";
    case RankKind::gloo_processes:
      return "GlooProcesses";
  }
  return "";
}

std::vector<std::string> run_ranks(RankKind kind, int size, const RankBody& body, const GlooOptions& options) {
  const tests::TempDir directory;
  if (kind == RankKind::gloo_processes) {
    return run_processes(size, [&](int rank) { return gloo_report(directory.path(), options, rank, size, body); });
  }
  std::vector<std::string> reports(size);
  std::vector<std::thread> threads;
  auto local = make_local_group(size);
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      if (kind == RankKind::gloo_threads) {
        reports[rank] = gloo_report(directory.path(), options, rank, size, body);
      } else {
        reports[rank] = report_of(*local[rank], body);
        local[rank].reset();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return reports;
}

}  // namespace lorikeet::comm
