#include "model/adapter/adapter_scan.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>

#include "model/config/strict_json.h"

namespace lorikeet::model {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxConfigBytes = 1u << 20;
constexpr std::string_view kPrefix = "base_model.model.";

// Both lengths are hashed first, so that no byte can move from one file to the other unnoticed.
std::string digest_of(std::string_view config, const SafetensorsImage& tensors) {
  const std::span<const uint8_t> head = tensors.header_bytes(), data = tensors.data();
  const std::array<uint64_t, 2> sizes = {config.size(), head.size() + data.size()};
  std::array<uint8_t, EVP_MAX_MD_SIZE> hash{};
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  const bool done = context != nullptr && EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1 &&
                    EVP_DigestUpdate(context, sizes.data(), sizeof sizes) == 1 &&
                    EVP_DigestUpdate(context, config.data(), config.size()) == 1 &&
                    EVP_DigestUpdate(context, head.data(), head.size()) == 1 &&
                    EVP_DigestUpdate(context, data.data(), data.size()) == 1 &&
                    EVP_DigestFinal_ex(context, hash.data(), nullptr) == 1;
  EVP_MD_CTX_free(context);
  if (!done) return "";
  std::string text;
  for (size_t i = 0; i < 16; ++i) text += fmt::format("{:02x}", hash[i]);
  return text;
}

Result<void> refuse_pickles(const fs::path& dir) {
  std::error_code error;
  if (!fs::is_directory(dir, error)) return fail("{}: no such directory", dir.string());
  if (!fs::exists(dir / "adapter_config.json", error)) {
    return fail("{}: not an adapter: there is no adapter_config.json", dir.string());
  }
  if (fs::exists(dir / "adapter_model.safetensors", error)) return {};
  for (const char* name : {"adapter_model.bin", "adapter_model.pt", "adapter_model.pth"}) {
    if (fs::exists(dir / name, error)) {
      return fail("{}: {} is pickled and could run code when read; save the adapter as safetensors", dir.string(),
                  name);
    }
  }
  return fail("{}: there is no adapter_model.safetensors", dir.string());
}

using Slot = std::optional<TensorView> AdapterModule::*;
struct Suffix {
  std::string_view text;
  Slot slot;
  bool is_embedding;
};
constexpr std::array<Suffix, 6> kSuffixes = {{
    {".lora_A.weight", &AdapterModule::a, false},
    {".lora_B.weight", &AdapterModule::b, false},
    {".lora_magnitude_vector", &AdapterModule::magnitude, false},
    {".lora_magnitude_vector.weight", &AdapterModule::magnitude, false},
    {".lora_embedding_A", &AdapterModule::a, true},
    {".lora_embedding_B", &AdapterModule::b, true},
}};

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() > end.size() && text.substr(text.size() - end.size()) == end;
}

// With lm_head or the embedding among the targets PEFT saves the base's own weights beside the adapter.
std::optional<std::string_view> base_copy_of(std::string_view name) {
  for (const std::string_view module : {"lm_head", "model.embed_tokens", "transformer.wte"}) {
    if (name.substr(0, module.size()) != module) continue;
    const std::string_view rest = name.substr(module.size());
    if (rest == ".weight" || rest == ".base_layer.weight") return module;
  }
  return std::nullopt;
}

Result<void> sort_tensor(std::string_view full_name, const TensorView& view, AdapterScan& scan) {
  const std::string_view name =
      full_name.substr(0, kPrefix.size()) == kPrefix ? full_name.substr(kPrefix.size()) : std::string_view();
  for (const Suffix& suffix : kSuffixes) {
    if (!ends_with(name, suffix.text)) continue;
    AdapterModule& module = scan.modules[std::string(name.substr(0, name.size() - suffix.text.size()))];
    if (module.*suffix.slot) return fail("{}: there is a second tensor for the same place", view.where);
    module.*suffix.slot = view;
    module.is_embedding = module.is_embedding || suffix.is_embedding;
    return {};
  }
  if (const auto module = base_copy_of(name)) {
    scan.base_copies.emplace(*module, view);
  } else {
    scan.strange.emplace_back(full_name);
  }
  return {};
}

}  // namespace

std::string list_names(const std::vector<std::string>& names, size_t shown) {
  const auto last = names.begin() + static_cast<ptrdiff_t>(std::min(shown, names.size()));
  std::string text = fmt::format("{}", fmt::join(names.begin(), last, ", "));
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

Result<AdapterScan> scan_adapter(const fs::path& dir) {
  if (auto ok = refuse_pickles(dir); !ok) return tl::unexpected(ok.error());
  const auto config_path = dir / "adapter_config.json";
  auto text = read_text_file(config_path, kMaxConfigBytes);
  if (!text) return tl::unexpected(text.error());
  AdapterScan scan;
  scan.dir = dir;
  auto config = AdapterConfig::parse(*text, config_path.string());
  if (!config) return tl::unexpected(config.error());
  scan.config = std::move(*config);
  scan.config_text = std::move(*text);

  auto file = SafetensorsImage::open(dir / "adapter_model.safetensors");
  if (!file) return tl::unexpected(file.error());
  scan.file = std::move(*file);
  for (const auto& [name, entry] : scan.file->header().tensors) {
    const TensorView view{&entry, {}, scan.file, fmt::format("{}: {}", dir.string(), name)};
    if (auto ok = sort_tensor(name, view, scan); !ok) return tl::unexpected(ok.error());
  }
  return scan;
}

Result<void> read_tensors(AdapterScan& scan) {
  if (auto ok = scan.file->read_data(); !ok) return ok;
  scan.digest = digest_of(scan.config_text, *scan.file);
  if (scan.digest.empty()) return fail("{}: SHA-256 is not available", scan.dir.string());
  const auto fill = [&](TensorView& view) {
    view.bytes = scan.file->data().subspan(view.entry->begin, view.entry->end - view.entry->begin);
  };
  for (auto& item : scan.modules) {
    AdapterModule& module = item.second;
    for (auto* view : {&module.a, &module.b, &module.magnitude}) {
      if (*view) fill(**view);
    }
  }
  for (auto& item : scan.base_copies) fill(item.second);
  return {};
}

}  // namespace lorikeet::model
