#include "launcher/adapter_measures.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include "actors/wire/adapter_list.h"
#include "kernels/base/descriptor.h"
#include "launcher/adapter_warmer.h"
#include "launcher/load_figures.h"
#include "launcher/load_plan.h"
#include "launcher/random_adapters.h"
#include "launcher/svg_plot.h"

namespace lorikeet::launcher {
namespace {

// Takes the files of an adapter out of the page cache, as far as their file system has them anywhere else.
Result<void> drop_from_page_cache(const std::filesystem::path& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const Descriptor file(open(entry.path().c_str(), O_RDONLY | O_CLOEXEC));
    if (!file || fdatasync(file.get()) != 0 || posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED) != 0) {
      return fail("{}: its pages cannot be dropped", entry.path().string());
    }
  }
  return error ? fail("{}: {}", directory.string(), error.message()) : Result<void>();
}

Result<void> read_into_page_cache(const std::filesystem::path& directory) {
  std::error_code error;
  std::vector<char> piece(1 << 20);
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    std::ifstream file(entry.path(), std::ios::binary);
    while (file.read(piece.data(), static_cast<std::streamsize>(piece.size()))) {
    }
  }
  return error ? fail("{}: {}", directory.string(), error.message()) : Result<void>();
}

// So many that adapters are loaded beside more than a few steps, as far as there is room for them.
int32_t tokens_beside_loads(const BenchFlags& flags, int64_t longest_prompt) {
  constexpr int64_t kTokens = 256;
  return static_cast<int32_t>(std::clamp(longest_prompt - 1, int64_t{flags.output_len}, kTokens + flags.output_len));
}

class AdapterMeasures {
 public:
  AdapterMeasures(const BenchFlags& flags, BenchReport& report, BenchEngine& engine, const BenchAdapters& adapters)
      : flags_(flags), report_(report), engine_(engine), adapters_(adapters) {}

  Result<void> run() {
    for (const auto part :
         {&AdapterMeasures::measure_disk_tiers, &AdapterMeasures::fill, &AdapterMeasures::measure_memory_tiers,
          &AdapterMeasures::measure_loads, &AdapterMeasures::measure_streams, &AdapterMeasures::measure_steps,
          &AdapterMeasures::measure_numbers}) {
      if (auto ok = (this->*part)(); !ok) return ok;
    }
    return flags_.plot.empty() ? Result<void>() : write_plot(flags_.plot, {chart_});
  }

 private:
  // Seconds to the first token of a request alone.
  Result<double> first_token(const std::string& adapter) {
    auto requests = engine_.requests(1, flags_.input_len, 1);
    if (!adapter.empty()) requests.front().adapter = adapter;
    const auto load = engine_.load(std::move(requests));
    if (!load) return tl::unexpected(load.error());
    return load->requests.front().first_token - load->requests.front().sent;
  }

  // The base model's time stands as the floor: no tier can be faster.
  void add_tier(const std::string& name, const std::vector<double>& times, const std::string& about = "") {
    const double median = percentile(times, 0.5);
    const double above = std::max(0.0, median - base_);
    report_.add({"first token, " + name + ", median", median * kMs, "ms", base_ * kMs, false,
                 fmt::format("{:.2f} ms above the base model{}{}", above * kMs, about.empty() ? "" : "; ", about)});
  }

  // In turn, so that what disturbs the machine disturbs all alike.
  Result<void> measure_disk_tiers() {
    std::vector<double> base, cached, cold;
    int32_t fresh = 0;
    if (auto warm = first_token(""); !warm) return tl::unexpected(warm.error());
    for (int32_t i = 0; i < flags_.num_iters; ++i) {
      const auto without = first_token("");
      if (!without) return tl::unexpected(without.error());
      base.push_back(*without);
      for (auto* times : {&cached, &cold}) {
        const std::string name = adapters_.fresh_name(fresh++);
        const auto directory = adapters_.directory / name;
        auto ok = times == &cached ? read_into_page_cache(directory) : drop_from_page_cache(directory);
        if (!ok) return ok;
        const auto seconds = first_token(name);
        if (!seconds) return tl::unexpected(seconds.error());
        times->push_back(*seconds);
      }
    }
    base_ = percentile(base, 0.5);
    report_.add({"first token, base model, median", base_ * kMs, "ms", 0, false, ""});
    add_tier("disk", cold);
    add_tier("page cache", cached);
    return {};
  }

  // One request for each of these adapters, all at once.
  Result<Load> ask_for(const std::vector<std::string>& names, size_t at_a_time, int32_t input_len) {
    auto requests = engine_.requests(names.size(), input_len, 1);
    for (size_t i = 0; i < names.size(); ++i) requests[i].adapter = names[i];
    LoadOptions options;
    options.max_concurrency = at_a_time;
    return engine_.load(std::move(requests), options);
  }

  // All of the pool into the head's memory.
  Result<void> fill() {
    const auto load = ask_for(adapters_.pool_names(), kBeyondSlots, 1);
    if (!load) return tl::unexpected(load.error());
    const auto status = engine_.status();
    if (!status) return tl::unexpected(status.error());
    const actors::Durations& reads = status->adapters.reads;
    if (const uint64_t count = reads.histogram.count(); count > 0) {
      report_.add({"from disk into the head's memory, mean",
                   1e-9 * static_cast<double>(reads.ns) / static_cast<double>(count) * kMs, "ms", 0, false, ""});
    }
    return {};
  }

  // Adapters of the pool that are in this tier now.
  Result<std::vector<std::string>> in_tier(std::string_view tier) {
    const auto status = engine_.status();
    if (!status) return tl::unexpected(status.error());
    std::vector<std::string> names;
    for (const actors::AdapterStatus& adapter : status->adapters.adapters) {
      if (actors::tier_of(adapter) == tier && std::stoi(adapter.name) < adapters_.pool) names.push_back(adapter.name);
    }
    return names;
  }

  Result<void> measure_memory_tiers() {
    std::vector<double> host, slot;
    for (int32_t i = 0; i < flags_.num_iters; ++i) {
      const auto names = in_tier("host");
      if (!names) return tl::unexpected(names.error());
      if (names->empty()) return fail("no adapter is in the head's memory alone: give a larger --max-cpu-lora-bytes");
      for (auto* times : {&host, &slot}) {  // the first request brings it into a slot
        const auto seconds = first_token(names->front());
        if (!seconds) return tl::unexpected(seconds.error());
        times->push_back(*seconds);
      }
    }
    add_tier("head's memory", host);
    add_tier("slot", slot);
    return {};
  }

  Result<uint64_t> sends() {
    const auto status = engine_.status();
    if (!status) return tl::unexpected(status.error());
    return status->adapters.sends.histogram.count();
  }

  // All that has no slot, at once, again and again.
  Result<void> measure_loads() {
    const auto before = sends();
    if (!before) return tl::unexpected(before.error());
    double seconds = 0;
    for (int32_t i = 0; i < flags_.num_iters; ++i) {
      const auto names = in_tier("host");
      if (!names) return tl::unexpected(names.error());
      const auto load = ask_for(*names, static_cast<size_t>(engine_.options().max_num_queued_reqs), flags_.input_len);
      if (!load) return tl::unexpected(load.error());
      seconds += load->seconds;
    }
    const auto after = sends();
    if (!after) return tl::unexpected(after.error());
    const auto count = static_cast<double>(*after - *before);
    report_.add({"loads into slots", count / seconds, "/s", 0, true, "each with a request of one token"});
    report_.add(
        {"loads into slots, bytes", count / seconds * static_cast<double>(adapter_bytes()) / 1e9, "GB/s", 0, true, ""});
    return {};
  }

  uint64_t adapter_bytes() const {
    return random_adapter_bytes(engine_.config(), flags_.lora_rank, flags_.lora_targets);
  }

  // Streams of the base model alone, then while adapters are loaded beside them.
  Result<void> measure_streams() {
    std::vector<double> alone, beside;
    const auto streams = static_cast<size_t>(flags_.batch_size);
    double length = 0;  // of a run, in seconds
    for (auto* gaps : {&alone, &beside}) {
      auto requests = engine_.requests(streams, flags_.input_len, flags_.output_len);
      LoadOptions options;
      if (gaps == &beside) {
        auto names = in_tier("host");
        if (!names) return tl::unexpected(names.error());
        names->resize(std::min(names->size(), kLoadsBesideStreams));
        auto loads = engine_.requests(names->size(), flags_.input_len, 1);
        options.send_times.assign(streams, 0);
        for (size_t i = 0; i < loads.size(); ++i) {
          loads[i].adapter = (*names)[i];
          options.send_times.push_back(length * static_cast<double>(i + 1) / static_cast<double>(loads.size() + 1));
        }
        std::move(loads.begin(), loads.end(), std::back_inserter(requests));
      }
      const auto load = engine_.load(std::move(requests), options);
      if (!load) return tl::unexpected(load.error());
      length = load->seconds;
      for (size_t i = 0; i < streams; ++i) {
        gaps->insert(gaps->end(), load->requests[i].gaps.begin(), load->requests[i].gaps.end());
      }
    }
    const double without = percentile(alone, 0.99);
    report_.add({fmt::format("between tokens of {} streams, p99", streams), without * kMs, "ms", 0, false, ""});
    report_.add({"between tokens while adapters load, p99", percentile(beside, 0.99) * kMs, "ms", without * kMs, false,
                 "prompts of the requests that load them included"});
    return {};
  }

  // Steps of the base model without prompts while nothing, or as much as is wanted, is loaded beside them.
  struct Steps {
    std::vector<double> gaps;  // seconds between tokens of all streams
    actors::StepTotals totals;
    double loads = 0, seconds = 0;

    double on_device() const {
      return totals.decode_steps == 0 ? 0 : 1e-9 * static_cast<double>(totals.decode_ns) / totals.decode_steps;
    }
  };

  Result<void> measure_steps_once(bool with_loads, Steps& steps) {
    const auto before = engine_.status();
    if (!before) return tl::unexpected(before.error());
    std::unique_ptr<AdapterWarmer> warmer;
    if (with_loads) {
      auto client = engine_.connect();
      if (!client) return tl::unexpected(client.error());
      warmer = std::make_unique<AdapterWarmer>(*std::move(client), adapters_.pool_names(), flags_.loads_per_second);
    }
    const auto load = engine_.load(engine_.requests(static_cast<size_t>(flags_.batch_size), 1,
                                                    tokens_beside_loads(flags_, engine_.longest_prompt())));
    if (!load) return tl::unexpected(load.error());
    auto after = engine_.status();
    if (!after) return tl::unexpected(after.error());
    if (warmer) {
      if (auto ok = warmer->stop(); !ok) return ok;
    }
    const auto gaps = steady_gaps(*load);
    if (gaps.empty()) return fail("no step was seen in which all {} streams had a token", flags_.batch_size);
    steps.gaps.insert(steps.gaps.end(), gaps.begin(), gaps.end());
    after->serving.steps -= before->serving.steps;
    steps.totals += after->serving.steps;
    steps.loads +=
        static_cast<double>(after->adapters.sends.histogram.count() - before->adapters.sends.histogram.count());
    steps.seconds += load->seconds;
    return {};
  }

  // In turn. The first loads of a server take longer than all later ones, and so do the steps beside them: they are not
  // counted.
  Result<void> measure_steps() {
    Steps first, alone, beside;
    if (auto ok = measure_steps_once(true, first); !ok) return ok;
    for (int32_t i = 0; i < flags_.num_iters; ++i) {
      if (auto ok = measure_steps_once(false, alone); !ok) return ok;
      if (auto ok = measure_steps_once(true, beside); !ok) return ok;
    }
    const std::string loads = fmt::format("{:.1f} loads a second, without prompts", beside.loads / beside.seconds);
    const auto streams = fmt::format("steps of {} streams, ", flags_.batch_size);
    const auto add = [&](const std::string& name, double without, double with, const std::string& about) {
      report_.add({streams + name, without * kMs, "ms", 0, false, ""});
      report_.add({"steps while adapters load, " + name, with * kMs, "ms", without * kMs, false, about});
    };
    for (const auto& [name, share] : {std::pair("median", 0.5), std::pair("p99", 0.99), std::pair("longest", 1.0)}) {
      add(name, percentile(alone.gaps, share), percentile(beside.gaps, share), loads);
    }
    if (alone.totals.decode_steps == 0 || beside.loads == 0) return {};
    const double more = beside.on_device() - alone.on_device();
    add("on the device, mean", alone.on_device(), beside.on_device(),
        fmt::format("{:+.3f} ms for each load, over all its steps",
                    more * static_cast<double>(beside.totals.decode_steps) / beside.loads * kMs));
    return {};
  }

  Result<void> measure_numbers() {
    Curve even{"even", {}}, zipf{fmt::format("Zipf {:g}", flags_.serve.zipf_exponent), {}};
    double without = 0;
    for (const int32_t number : flags_.num_adapters) {
      for (const AdapterMix mix : {AdapterMix::uniform, AdapterMix::zipf}) {
        if (number <= 1 && mix == AdapterMix::zipf) continue;  // the same
        const auto rate = throughput(number, mix);
        if (!rate) return tl::unexpected(rate.error());
        if (number == 0) without = *rate;
        const std::string name =
            number == 0   ? "no adapter"
            : number == 1 ? "1 adapter"
                          : fmt::format("{} adapters, {}", number, (mix == AdapterMix::zipf ? zipf : even).name);
        report_.add({name + ": output tokens", *rate, "tokens/s", number > 0 ? without : 0, true,
                     number > 0 && without > 0 ? "against no adapter" : ""});
        if (mix == AdapterMix::uniform) even.points.emplace_back(number, *rate);
        if (mix == AdapterMix::zipf || number <= 1) zipf.points.emplace_back(number, *rate);
      }
    }
    chart_ = {fmt::format("{} at a time, {} slots", flags_.batch_size, engine_.options().max_loras),
              "adapters",
              "tokens/s",
              {std::move(even), std::move(zipf)}};
    return {};
  }

  Result<double> throughput(int32_t number, AdapterMix mix) {
    const auto count = static_cast<size_t>(flags_.num_prompts);
    auto requests = engine_.requests(count, flags_.input_len, flags_.output_len);
    if (number > 0) {
      std::vector<std::string> names;
      for (int32_t i = 0; i < number; ++i) names.push_back(adapters_.pool_name(i));
      const auto drawn = draw_adapters(count, names, mix, flags_.serve.zipf_exponent, static_cast<uint64_t>(number));
      for (size_t i = 0; i < count; ++i) requests[i].adapter = drawn[i];
    }
    LoadOptions options;
    options.max_concurrency = static_cast<size_t>(flags_.batch_size);
    const auto load = engine_.load(std::move(requests), options);
    if (!load) return tl::unexpected(load.error());
    return static_cast<double>(load->tokens()) / load->seconds;
  }

  const BenchFlags& flags_;
  BenchReport& report_;
  BenchEngine& engine_;
  const BenchAdapters& adapters_;
  double base_ = 0;  // seconds to the base model's first token
  Chart chart_;
};

}  // namespace

int64_t tokens_of_measures(const BenchFlags& flags, const BenchAdapters& adapters, int64_t longest_prompt) {
  int64_t tokens = 1 + 5 * int64_t{flags.num_iters} + adapters.pool;
  tokens += int64_t{flags.num_iters} * kBeyondSlots + 2 * int64_t{flags.batch_size} * flags.output_len;
  tokens += (1 + 2 * int64_t{flags.num_iters}) * flags.batch_size * tokens_beside_loads(flags, longest_prompt);
  for (const int32_t number : flags.num_adapters) {
    tokens += (number > 1 ? 2 : 1) * int64_t{flags.num_prompts} * flags.output_len;
  }
  return tokens;
}

Result<void> measure_adapters(const BenchFlags& flags, BenchReport& report, BenchEngine& engine,
                              const BenchAdapters& adapters) {
  return AdapterMeasures(flags, report, engine, adapters).run();
}

}  // namespace lorikeet::launcher
