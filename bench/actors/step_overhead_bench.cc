// What the actors cost per step: a scheduler in this process and a worker in another one, joined by a socket pair,
// around a model that takes no time. So a step is: plan, encode, send, decode, execute, and the same way back with the
// result; two plans in flight, as in service. Beside it and in turn with it the floor: as many bytes there and back
// over a plain TCP connection of the loopback, to a third process.
//
//   step_overhead_bench [Google Benchmark's flags]
#include <benchmark/benchmark.h>
#include <glog/logging.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

#include "actors/head/messages.h"
#include "actors/head/scheduler.h"
#include "actors/rank/rank_backend.h"
#include "actors/rank/worker.h"
#include "actors/wire/caf_connection.h"
#include "actors/wire/step_codec.h"
#include "actors/wire/system_config.h"
#include "bench/comm/loopback.h"
#include "tests/actors/fake_adapter_cache.h"

namespace lorikeet::actors {
namespace {

constexpr int32_t kContext = 1 << 20;
constexpr int32_t kSteps = 500;

class InstantModel final : public model::RankModel {
 public:
  Result<void> set_adapter(int32_t, const model::Adapter&) override { return {}; }
  Result<void> set_slice(int32_t, const model::AdapterSlice&, model::SliceBytes) override { return {}; }
  void clear_adapter(int32_t) override {}
  std::vector<std::vector<float>> dora_squared_norms(const model::Adapter&) override { return {}; }
  void begin_step(std::span<const model::BatchRow> rows) override { steps_.push_back(rows.size()); }
  bool step_ready() override { return true; }
  std::vector<model::RowOutput> finish_step() override {
    std::vector<model::RowOutput> outputs(steps_.front());
    steps_.pop_front();
    for (model::RowOutput& output : outputs) output.token_id = 1;
    return outputs;
  }
  uint64_t kv_block_bytes() const override { return 1; }

 private:
  std::deque<size_t> steps_;
};

class InstantBackend final : public RankBackend {
 public:
  Result<RankLoaded> load(const std::function<void(int, int)>&) override {
    model::ModelConfig config;
    config.hidden_size = 32;
    config.num_layers = 1;
    config.num_heads = config.num_kv_heads = 2;
    config.head_dim = 16;
    config.intermediate_size = 256;
    config.vocab_size = 64;
    plan_ = model::ShardPlan::make(config, 1).value();
    return RankLoaded{1 << 20, 1, 1};
  }
  Result<std::shared_ptr<model::RankModel>> join(comm::Rendezvous&, uint64_t, int32_t) override {
    return std::make_shared<InstantModel>();
  }
  void abort(uint64_t) override {}
  const model::ShardPlan& shard_plan() const override { return *plan_; }

 private:
  std::optional<model::ShardPlan> plan_;
};

ServerOptions options() {
  ServerOptions made;
  made.max_num_seqs = 256;
  made.max_num_queued_reqs = 1 << 20;
  return made;
}

int run_worker(int head) {
  WorkerSetup setup;
  setup.start.options = options();
  setup.start.rank = 0;
  setup.head = head;
  setup.backend = std::make_shared<InstantBackend>();
  setup.loading = [](int, int) {};
  setup.fatal = [](const std::string&) { _exit(1); };
  SystemConfig config(setup.start.options, Networking::connected, 1);
  caf::actor_system system{config};
  system.spawn(worker, std::move(setup));
  for (;;) pause();
}

// Counts the requests that have ended, and whether the group serves.
struct Progress {
  std::mutex mutex;
  std::condition_variable wake;
  size_t ended = 0;
  bool ready = false;

  void wait_for(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex);
    wake.wait(lock, condition);
  }
};

GatewayActor::behavior_type counting_gateway(GatewayActor::pointer, Progress* progress) {
  return {[](ClientSaid&) {},
          [](ClientGone&) {},
          [progress](EngineEvents& batch) {
            size_t ended = 0;
            for (const engine::Event& event : *batch.events)
              ended += std::holds_alternative<engine::FinishEvent>(event);
            if (ended == 0) return;
            {
              const std::lock_guard lock(progress->mutex);
              progress->ended += ended;
            }
            progress->wake.notify_one();
          },
          [](StopServing&) {},
          [](const Drain&) { return true; },
          [](Tick) {},
          [](Pulse) { return true; }};
}

// The head's side, and the worker's process.
class Pair {
 public:
  Pair() {
    SchedulerSetup setup;
    setup.options = options();
    setup.max_model_len = kContext;
    setup.cache = system_.spawn(fake_adapter_cache, FakeCacheAnswers{});
    setup.to_supervisor = [this](const ChildReport& report) {
      {
        const std::lock_guard lock(progress_.mutex);
        progress_.ready = std::holds_alternative<control::Ready>(report);
      }
      progress_.wake.notify_one();
    };
    scheduler_ = system_.spawn(scheduler, std::move(setup));
    caf::anon_send(scheduler_, Serve{system_.spawn(counting_gateway, &progress_), "here"});
    std::array<int, 2> ends{};
    PCHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0);
    child_ = fork();
    if (child_ == 0) {
      close(ends[0]);
      execl("/proc/self/exe", "step_overhead_bench", "worker", std::to_string(ends[1]).c_str(), nullptr);
      _exit(1);
    }
    close(ends[1]);
    offer_to_rank(system_, Descriptor(ends[0]), 0, std::make_shared<PeerRanks>(), scheduler_);
    progress_.wait_for([this] { return progress_.ready; });
  }

  // Runs `sequences` side by side for `tokens` steps.
  void generate(int64_t sequences, int32_t tokens) {
    const size_t goal = progress_.ended + static_cast<size_t>(sequences);
    for (int64_t i = 0; i < sequences; ++i) {
      auto request = std::make_shared<engine::Request>();
      request->id = engine::SequenceId(++last_id_);
      request->prompt = {1};
      request->sampling.max_tokens = tokens;
      request->sampling.temperature = 0;
      caf::anon_send(scheduler_, Submit{std::move(request)});
    }
    progress_.wait_for([&] { return progress_.ended >= goal; });
  }

  static Pair& shared() {
    static auto* pair = new Pair;  // outlives main: its actors need no orderly end
    return *pair;
  }

  pid_t child() const { return child_; }

 private:
  SystemConfig config_{options(), Networking::connected, 3};
  caf::actor_system system_{config_};
  Progress progress_;
  SchedulerActor scheduler_;
  pid_t child_ = 0;
  uint64_t last_id_ = 0;
};

// ---- the floor

// The other end of a TCP connection: answers `reply` bytes to every `size` bytes. Both are told first.
struct Exchange {
  uint32_t size = 0, reply = 0;
};

void transfer(int socket, std::vector<char>& bytes, bool send_it) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = send_it ? send(socket, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL)
                              : recv(socket, bytes.data() + done, bytes.size() - done, 0);
    if (n <= 0) _exit(0);  // the other process has ended
    done += static_cast<size_t>(n);
  }
}

[[noreturn]] void echo(int socket) {
  for (std::vector<char> header(sizeof(Exchange)), bytes;;) {
    transfer(socket, header, false);
    Exchange sizes;
    std::memcpy(&sizes, header.data(), sizeof(sizes));
    bytes.resize(sizes.size - sizeof(sizes));
    transfer(socket, bytes, false);
    bytes.resize(sizes.reply);
    transfer(socket, bytes, true);
  }
}

// Starts the process that echoes; before there are threads.
int start_echo() {
  const auto [near, far] = bench::connected_pair();
  if (fork() == 0) {
    close(near);
    echo(far);
  }
  close(far);
  return near;
}

int echo_socket = -1;

// The bytes of a plan and of its result with `rows` decode rows, all of which began together; every sixteenth takes a
// block.
Exchange bytes_of_a_step(int64_t rows) {
  engine::StepPlan plan;
  engine::StepResult result;
  for (int64_t row = 0; row < rows; ++row) {
    const engine::SequenceId id(static_cast<uint64_t>(row));
    plan.rows.push_back({id, kSteps / 2, 1, true});
    result.rows.push_back({id, 1, {}});
    if (row % 16 == 15) plan.blocks.push_back({id, {engine::BlockId(static_cast<int32_t>(row))}});
  }
  result.times = {1'000'000, 1'000, true};
  return {static_cast<uint32_t>(encode_plan(plan).size()), static_cast<uint32_t>(encode_result(result).size())};
}

double exchange_us(const Exchange& sizes, int times) {
  std::vector<char> out(std::max<size_t>(sizes.size, sizeof(sizes))), in(sizes.reply);
  std::memcpy(out.data(), &sizes, sizeof(sizes));
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < times; ++i) {
    transfer(echo_socket, out, true);
    transfer(echo_socket, in, false);
  }
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / times;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void step(benchmark::State& state) {
  Pair& pair = Pair::shared();
  const Exchange sizes = bytes_of_a_step(state.range(0));
  std::vector<double> floors, steps;
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    pair.generate(state.range(0), kSteps);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    state.SetIterationTime(time.count() / kSteps);
    steps.push_back(time.count() * 1e6 / kSteps);
    floors.push_back(exchange_us(sizes, kSteps));
  }
  state.counters["step_us"] = median(steps);
  state.counters["floor_us"] = median(floors);
  state.counters["plan_bytes"] = sizes.size;
  state.counters["result_bytes"] = sizes.reply;
}
BENCHMARK(step)->Arg(1)->Arg(32)->Arg(256)->UseManualTime()->Iterations(15)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lorikeet::actors

int main(int argc, char** argv) {
  using namespace lorikeet::actors;
  if (argc == 3 && std::strcmp(argv[1], "worker") == 0) return run_worker(std::stoi(argv[2]));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  echo_socket = start_echo();
  benchmark::RunSpecifiedBenchmarks();
  kill(Pair::shared().child(), SIGKILL);
  _exit(0);  // the actors are not worth waiting for
}
