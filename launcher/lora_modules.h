// The flags that say where adapters are: --lora-modules names some, --lora-dir says where clients may load others from.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "actors/wire/options.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

// Name and directory out of "NAME=DIR" or vLLM's {"name": NAME, "path": DIR}.
Result<std::pair<std::string, std::string>> parse_lora_module(const std::string& text);

// Parses --lora-modules into options.lora_modules. Fails for names that cannot be served or are given twice, and for
// what is no directory.
Result<void> read_lora_modules(const std::vector<std::string>& texts, actors::ServerOptions& options);

// Makes options.lora_dirs absolute. Fails for what is no directory, and where --enable-runtime-lora-updating is given
// without any. Then lets vLLM's variable VLLM_ALLOW_RUNTIME_LORA_UPDATING turn loading on, too.
Result<void> read_lora_dirs(actors::ServerOptions& options);

}  // namespace lorikeet::launcher
