// Finds the model that people name: a directory, or a downloaded repository of the Hugging Face hub.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::launcher {

// The folders in which the hub's clients keep what they downloaded, most specific first: HF_HUB_CACHE, HF_HOME/hub,
// XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub.
std::vector<std::filesystem::path> hub_caches();

// `model` itself where it is a directory; else, where it is an id like Qwen/Qwen2.5-14B-Instruct-GPTQ-Int4, the
// snapshot of it that a cache's refs/main names. The error says how to download it.
Result<std::string> find_model(const std::string& model, const std::vector<std::filesystem::path>& caches);

}  // namespace lorikeet::launcher
