#include "launcher/server_flags.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "actors/wire/kv_budget.h"
#include "launcher/adapter_memory.h"
#include "launcher/chat_flags.h"
#include "launcher/config_file.h"
#include "launcher/device.h"
#include "launcher/flag_values.h"
#include "launcher/lora_modules.h"
#include "launcher/model_path.h"
#include "launcher/sizes.h"
#include "launcher/zmq_address.h"
#include "model/checkpoint/shard_plan.h"
#include "model/config/config.h"

namespace lorikeet::launcher {
namespace {

constexpr int32_t kMostPositions = 1 << 24;

Result<void> check_range(std::string_view flag, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) return fail("{} {}: give a value from {} to {}", flag, value, low, high);
  return {};
}

Result<void> check_numbers(const actors::ServerOptions& o) {
  struct Bound {
    std::string_view flag;
    int64_t value, low, high;
  };
  const Bound bounds[] = {
      {"--tensor-parallel-size", o.tensor_parallel_size, 1, 64},
      {"--max-model-len", o.max_model_len, 0, kMostPositions},
      {"--max-num-seqs", o.max_num_seqs, 1, 65536},
      {"--max-num-batched-tokens", o.max_num_batched_tokens, 1, 1 << 20},
      {"--max-num-queued-reqs", o.max_num_queued_reqs, 1, 1 << 20},
      {"--block-size", o.block_size, 1, 1024},
      {"--max-cpu-loras", o.max_cpu_loras, 0, 1 << 20},
      {"--max-lora-rank", o.max_lora_rank, 1, 4096},
      {"--threads", o.threads, 0, 1024},
      {"--heartbeat-ms", o.heartbeat_ms, 50, 60'000},
      {"--rank-timeout-ms", o.rank_timeout_ms, 100, 3'600'000},
  };
  for (const Bound& b : bounds) {
    if (auto ok = check_range(b.flag, b.value, b.low, b.high); !ok) return ok;
  }
  return {};
}

Result<void> check_quantization(std::string wanted, const model::ModelConfig& config) {
  // vLLM names kernels in the same breath: the checkpoint is the same.
  const size_t kernel = wanted.rfind("_marlin");
  if (kernel != std::string::npos && kernel + 7 == wanted.size()) wanted.resize(kernel);
  if (wanted == "auto") return {};
  constexpr std::string_view names[] = {"none", "gptq", "gptq", "awq", "compressed-tensors"};
  const std::string_view found = names[static_cast<size_t>(config.quant.method)];
  // AutoRound, and Intel's neural compressor, pack as one of these two do.
  if ((wanted == "auto-round" || wanted == "inc") && (found == "gptq" || found == "awq")) return {};
  if (wanted != found) return fail("--quantization {}: the checkpoint is {}", wanted, found);
  return {};
}

Result<std::string> choose_dtype(const std::string& wanted, const std::string& device) {
  if (wanted == "fp16") return std::string("float16");
  if (wanted == "bf16") return std::string("bfloat16");
  if (wanted != "float32" && wanted != "float") return wanted;
  if (device == "cuda") return fail("--dtype {}: on the GPU activations are float16 or bfloat16", wanted);
  return std::string("auto");  // the CPU computes in float32 whatever is asked
}

void add_model_flags(CLI::App& app, ServerFlags& f) {
  actors::ServerOptions& o = f.options;
  app.add_option("MODEL,--model", o.model,
                 "Directory of the checkpoint (config.json, *.safetensors, the tokenizer's files), or the id of one in "
                 "the Hugging Face cache")
      ->required();
  add_config_flag(app);
  app.add_option("--served-model-name", f.served_model_names,
                 "Names of the base model (default: the directory's name); the first is the one that it goes by")
      ->expected(1, CLI::detail::expected_max_vector_size);
  app.add_option("--lora-modules", f.lora_modules,
                 "Adapters: NAME=DIR ..., or {\"name\": NAME, \"path\": DIR}; several values, may be repeated")
      ->expected(1, CLI::detail::expected_max_vector_size);
  app.add_option("--tensor-parallel-size,--tp", o.tensor_parallel_size, "Ranks that the model is cut over");
  app.add_option("--device", f.device, "Where the ranks compute")->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  app.add_option("--zmq", o.zmq_address,
                 "ZeroMQ address for clients (tcp://HOST:PORT, port 0 picks one; or ipc://PATH)")
      ->check(zmq_address());
  app.add_option("--dtype", o.dtype, "Activations on the GPU; on the CPU they are float32")
      ->check(CLI::IsMember({"auto", "half", "float16", "fp16", "bfloat16", "bf16", "float32", "float"}));
  app.add_option("--quantization,-q", f.quantization, "What the checkpoint must be")
      ->check(CLI::IsMember(
          {"auto", "none", "gptq", "gptq_marlin", "awq", "awq_marlin", "auto-round", "inc", "compressed-tensors"}));
  app.add_option("--load-format", o.load_format, "dummy fills the weights at random: no *.safetensors needed")
      ->check(CLI::IsMember({"auto", "safetensors", "fastsafetensors", "runai_streamer", "dummy"}));
}

void add_scheduling_flags(CLI::App& app, ServerFlags& f) {
  actors::ServerOptions& o = f.options;
  const std::string group = "Scheduling and memory";
  app.add_option("--max-model-len", f.max_model_len,
                 "Positions of a sequence, prompt included, such as 8192 or 32k (0: the checkpoint's)")
      ->group(group);
  app.add_option("--cpu-activations", o.cpu_activations,
                 "What int4 products on the CPU multiply: float32 is exact; int8, rounded in groups of 32, is faster, "
                 "above all for prompts, and moves log-probabilities a little")
      ->check(CLI::IsMember({"float32", "int8"}))
      ->group(group);
  app.add_option("--max-num-seqs", o.max_num_seqs, "Sequences in one step")->group(group);
  app.add_option("--max-num-batched-tokens", o.max_num_batched_tokens,
                 "Tokens in one step, such as 2048 or 2k; longer prompts go in chunks")
      ->transform(plain_count())
      ->group(group);
  app.add_option("--max-num-queued-reqs", o.max_num_queued_reqs, "Requests that may wait; one more is refused")
      ->group(group);
  app.add_option("--request-timeout", f.request_timeout, "Seconds from a request's arrival to its end (0: no limit)")
      ->check(CLI::Range(0.0, 1e6))
      ->group(group);
  app.add_option("--block-size", o.block_size, "Positions in a block of the KV cache")->group(group);
  app.add_option("--kv-cache-memory-bytes", f.kv_cache_memory,
                 "KV cache of each rank, such as 8G, 8GiB or 8GB (0: decided at start)")
      ->group(group);
  app.add_option("--kv-cache-dtype", o.kv_cache_dtype, "Element type of the KV cache on the GPU")
      ->check(CLI::IsMember({"auto", "fp16", "float16", "bf16", "bfloat16", "fp8", "fp8_e4m3"}))
      ->group(group);
  app.add_option("--gpu-memory-utilization", f.gpu_memory_utilization, "Share of the GPU's memory to use")
      ->group(group);
  app.add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", f.enable_prefix_caching,
               "Reuse the KV blocks of equal prefixes under the same adapter (default: on)")
      ->group(group);
  app.add_option("--seed", o.seed, "Where the seeds of requests without one are drawn from (0: the system)")
      ->check(whole_number())
      ->group(group);
  app.add_option("--threads", o.threads, "CPU threads of each rank (0: cores / ranks)")->group(group);
}

void add_adapter_flags(CLI::App& app, ServerFlags& f) {
  actors::ServerOptions& o = f.options;
  const std::string lora = "Adapters";
  app.add_flag("--enable-lora", f.enable_lora, "Accepted as vLLM names it; adapters are always on")->group(lora);
  app.add_option("--max-loras", f.max_loras,
                 "Adapter slots of each rank: distinct adapters in one step (auto: as many as fit a sixteenth of the "
                 "device's memory)")
      ->group(lora);
  app.add_option("--max-cpu-loras", o.max_cpu_loras, "Adapters kept in the head's memory (0: as many as fit)")
      ->group(lora);
  app.add_option("--max-cpu-lora-bytes", f.max_cpu_lora_memory,
                 "Memory for them, such as 4G or 4GiB (auto: an eighth of the host's)")
      ->group(lora);
  app.add_flag("--enable-runtime-lora-updating", o.runtime_lora_updating,
               "Let clients load, unload and pin adapters (or VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in the environment)")
      ->group(lora);
  app.add_option("--lora-dir", o.lora_dirs,
                 "Directory below which those adapters must lie, links followed; may be repeated")
      ->allow_extra_args(false)
      ->group(lora);
  app.add_option("--max-lora-rank", o.max_lora_rank, "Adapters of a higher rank are refused")->group(lora);
}

void add_process_flags(CLI::App& app, actors::ServerOptions& o) {
  const std::string processes = "Processes";
  app.add_option("--heartbeat-ms", o.heartbeat_ms, "Heartbeat between the server's processes, milliseconds")
      ->group(processes);
  app.add_option(
         "--rank-timeout-ms", o.rank_timeout_ms,
         "A rank is taken for hung when its step takes longer than its work should, by what steps took before, and "
         "this many milliseconds (7000 at the most on CUDA); it bounds other answers of the ranks, too")
      ->group(processes);
  app.add_option("--test-hooks", o.test_hooks, "For tests")->group("");
}

}  // namespace

void add_server_flags(CLI::App& app, ServerFlags& f) {
  app.option_defaults()->always_capture_default();
  add_model_flags(app, f);
  add_scheduling_flags(app, f);
  add_chat_flags(app, f.options);
  add_adapter_flags(app, f);
  add_process_flags(app, f.options);
  add_foreign_flags(app, f.foreign);
}

Result<actors::ServerOptions> resolve(const ServerFlags& flags) {
  actors::ServerOptions o = flags.options;
  if (!flags.foreign.refused.empty()) return fail("{}", fmt::join(flags.foreign.refused, "\n"));
  auto model = find_model(o.model, hub_caches());
  if (!model) return tl::unexpected(model.error());
  for (const std::string& name : flags.served_model_names) {
    if (name.empty()) return fail("--served-model-name: a name is empty");
    const auto& more = o.more_model_names;
    if (name == o.served_model_name || std::find(more.begin(), more.end(), name) != more.end()) continue;
    (o.served_model_name.empty() ? o.served_model_name : o.more_model_names.emplace_back()) = name;
  }
  if (o.served_model_name.empty()) {
    o.served_model_name = *model == o.model ? std::filesystem::weakly_canonical(o.model).filename().string() : o.model;
  }
  o.model = *std::move(model);
  auto config = model::read_model_config(o.model);
  if (!config) return tl::unexpected(config.error());
  auto length = parse_count(flags.max_model_len, kMostPositions);
  if (!length) return fail("--max-model-len: {}", length.error().message);
  o.max_model_len = *length;
  if (auto ok = check_numbers(o); !ok) return tl::unexpected(ok.error());
  if (auto ok = check_quantization(flags.quantization, *config); !ok) return tl::unexpected(ok.error());
  const auto plan = model::ShardPlan::make(*config, o.tensor_parallel_size);
  if (!plan) return tl::unexpected(plan.error());
  if (auto ok = actors::context_length(o, *config); !ok) return tl::unexpected(ok.error());
  if (o.load_format != "dummy") o.load_format = "auto";  // vLLM's others read the same files in another way
  for (const auto& [said, meant] :
       {std::pair("float16", "fp16"), std::pair("bfloat16", "bf16"), std::pair("fp8_e4m3", "fp8")}) {
    if (o.kv_cache_dtype == said) o.kv_cache_dtype = meant;
  }
  if (o.chat.tool_call_parser == "qwen3_xml") o.chat.tool_call_parser = "qwen3_coder";  // two parsers of one form

  if (auto ok = check_chat_flags(o.chat); !ok) return tl::unexpected(ok.error());
  if (auto ok = check_chat_template(o.chat_template); !ok) return tl::unexpected(ok.error());
  auto kv_bytes = parse_bytes(flags.kv_cache_memory);
  if (!kv_bytes) return fail("--kv-cache-memory-bytes: {}", kv_bytes.error().message);
  o.kv_cache_memory_bytes = *kv_bytes;
  if (!(flags.gpu_memory_utilization > 0 && flags.gpu_memory_utilization <= 1)) {
    return fail("--gpu-memory-utilization {}: give a share above 0, at most 1", flags.gpu_memory_utilization);
  }
  o.gpu_memory_utilization = fmt::format("{}", flags.gpu_memory_utilization);
  o.request_timeout_ms = static_cast<int32_t>(flags.request_timeout * 1000);
  o.enable_prefix_caching = flags.enable_prefix_caching;

  const bool is_of_others = !flags.computes_here && flags.device != "auto";
  auto device = is_of_others ? Result<std::string>(flags.device) : choose_device(flags.device);
  if (!device) return tl::unexpected(device.error());
  o.device = *device;
  MemoryFacts memory = memory_facts(flags.computes_here ? o.device : "cpu");
  memory.of_all_ranks = flags.computes_alone;
  if (auto ok = choose_adapter_memory(flags.max_loras, flags.max_cpu_lora_memory, *plan, memory, o); !ok) {
    return tl::unexpected(ok.error());
  }
  auto dtype = choose_dtype(o.dtype, o.device);
  if (!dtype) return tl::unexpected(dtype.error());
  o.dtype = *dtype;
  if (auto ok = read_lora_modules(flags.lora_modules, o); !ok) return tl::unexpected(ok.error());
  if (auto ok = read_lora_dirs(o); !ok) return tl::unexpected(ok.error());
  return o;
}

}  // namespace lorikeet::launcher
