// The flags that describe a server, shared by `serve` and `batch`, and their way into one validated ServerOptions.
// Names follow `vllm serve` where it has the same thing.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "actors/wire/options.h"
#include "kernels/base/error.h"
#include "launcher/foreign_flags.h"

namespace lorikeet::launcher {

// What the command line said, before it is checked against the checkpoint and the machine.
struct ServerFlags {
  actors::ServerOptions options;  // flags that need no translation write here
  std::vector<std::string> served_model_names;
  std::vector<std::string> lora_modules;  // launcher/lora_modules.h has the forms
  std::string device = "auto";
  bool computes_here = true;   // false: only other hosts have ranks, and this one needs no device
  bool computes_alone = true;  // false: other hosts have ranks, too
  std::string quantization = "auto";
  std::string max_model_len = "0";  // launcher/sizes.h has the forms
  std::string kv_cache_memory = "0";
  std::string max_loras = "auto", max_cpu_lora_memory = "auto";  // launcher/adapter_memory.h
  bool enable_lora = true;
  bool enable_prefix_caching = true;
  double request_timeout = 0;  // seconds
  double gpu_memory_utilization = 0.9;
  ForeignFlags foreign;
};

// Adds every flag, with its help and default, and vLLM's flags that mean nothing here. `flags` must outlive the parsing.
void add_server_flags(CLI::App& app, ServerFlags& flags);

// Reads config.json, checks every value, decides "auto". Errors name the flag.
Result<actors::ServerOptions> resolve(const ServerFlags& flags);

}  // namespace lorikeet::launcher
