#include "model/adapter/adapter_scan.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "kernels/base/printable.h"
#include "model/adapter/adapter_tensor_name.h"
#include "model/checkpoint/file_reader.h"
#include "model/checkpoint/stored_floats.h"

namespace lorikeet::model {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxConfigBytes = 1u << 20;

// SHA-256 of what is added, in order. OpenSSL uses the processor's instructions for it where there are any.
class Sha256 {
 public:
  static constexpr size_t kBytes = 32;
  using Hash = std::array<uint8_t, kBytes>;

  Sha256() : context_(EVP_MD_CTX_new()) {
    ok_ = context_ != nullptr && EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1;
  }
  ~Sha256() { EVP_MD_CTX_free(context_); }
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void add(const void* data, size_t size) { ok_ = ok_ && EVP_DigestUpdate(context_, data, size) == 1; }
  // Its length first, so that no byte can move from one to the next unnoticed.
  void add_text(std::string_view text) {
    add_number(text.size());
    add(text.data(), text.size());
  }
  void add_number(uint64_t number) { add(&number, sizeof number); }

  std::optional<Hash> end() {
    Hash hash{};
    ok_ = ok_ && EVP_DigestFinal_ex(context_, hash.data(), nullptr) == 1;
    return ok_ ? std::optional<Hash>(hash) : std::nullopt;
  }

 private:
  EVP_MD_CTX* context_;
  bool ok_;
};

// hashes: of the tensors, in the header's order.
std::string digest_of(std::string_view config, const SafetensorsHeader& header,
                      const std::vector<std::optional<Sha256::Hash>>& hashes) {
  Sha256 all;
  all.add_text(config);
  all.add_number(hashes.size());
  size_t index = 0;
  for (const auto& [name, entry] : header.tensors) {
    const auto& hash = hashes[index++];
    if (!hash) return "";
    all.add_text(name);
    all.add_text(entry.dtype_name);
    all.add_number(entry.shape.size());
    for (const int64_t size : entry.shape) all.add_number(static_cast<uint64_t>(size));
    all.add(hash->data(), hash->size());
  }
  const auto hash = all.end();
  std::string text;
  for (size_t i = 0; hash && i < 16; ++i) text += fmt::format("{:02x}", (*hash)[i]);
  return text;
}

// Those that belong to modules.
std::map<const TensorEntry*, const TensorView*> lora_tensors(const AdapterScan& scan) {
  std::map<const TensorEntry*, const TensorView*> found;
  for (const auto& item : scan.modules) {
    for (const auto* view : {&item.second.a, &item.second.b, &item.second.magnitude}) {
      if (*view) found.emplace((*view)->entry, &**view);
    }
  }
  return found;
}

Result<void> check_finite(const TensorView& tensor, std::span<const uint8_t> bytes) {
  const auto dtype = tensor.entry->dtype;
  if (dtype != kernels::Dtype::f32 && dtype != kernels::Dtype::f16 && dtype != kernels::Dtype::bf16) {
    return fail("{} is {}, expected F32, F16 or BF16", tensor.where, tensor.entry->dtype_name);
  }
  if (const auto i = first_not_finite(*dtype, bytes)) return fail("{}: element {} is not finite", tensor.where, *i);
  return {};
}

Result<void> check_files(const fs::path& dir) {
  std::error_code error;
  if (!fs::exists(dir, error) && error) return fail("{}: {}", dir.string(), error.message());
  if (!fs::is_directory(dir, error)) return fail("{}: no such directory", dir.string());
  if (!fs::exists(dir / "adapter_config.json", error)) {
    if (error) return fail("{}: {}", (dir / "adapter_config.json").string(), error.message());
    return fail("{}: not an adapter: there is no adapter_config.json", dir.string());
  }
  for (const char* name : {"new_embeddings.safetensors", "new_embeddings.bin", "non_lora_trainables.bin"}) {
    if (fs::exists(dir / name, error)) {
      return fail("{}: {} holds weights that were trained beside the LoRA: they are not served", dir.string(), name);
    }
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

std::optional<TensorView>& slot_of(AdapterModule& module, AdapterTensorName::Kind kind) {
  switch (kind) {
    case AdapterTensorName::Kind::a:
    case AdapterTensorName::Kind::embedding_a:
      return module.a;
    case AdapterTensorName::Kind::magnitude:
      return module.magnitude;
    default:
      return module.b;
  }
}

// `adapters` collects the names of adapters.
Result<void> sort_tensor(const std::string& full_name, TensorView view, AdapterScan& scan,
                         std::set<std::string>& adapters) {
  using Kind = AdapterTensorName::Kind;
  auto name = parse_adapter_tensor_name(full_name);
  if (!name) {
    scan.strange.push_back(full_name);
    return {};
  }
  if (name->kind == Kind::base_copy) {
    scan.base_copies.push_back({std::move(name->module), std::move(view)});
    return {};
  }
  adapters.insert(name->adapter);
  if (adapters.size() > 1) {
    return fail("{}: tensors of several adapters in one file (named {}): save them one by one", scan.dir.string(),
                list_names({adapters.begin(), adapters.end()}));
  }
  AdapterModule& module = scan.modules[name->module];
  std::optional<TensorView>& slot = slot_of(module, name->kind);
  if (slot) return fail("{}: there is a second tensor for the same place", view.where);
  slot = std::move(view);
  module.is_embedding = module.is_embedding || name->kind == Kind::embedding_a || name->kind == Kind::embedding_b;
  module.stored_name = std::move(name->stored_module);
  return {};
}

Result<std::string> read_config(const fs::path& path, std::span<const std::string> within) {
  auto file = FileReader::open(path, within);
  if (!file) return tl::unexpected(file.error());
  const uint64_t size = (*file)->size();
  if (size > kMaxConfigBytes) return fail("{}: {} bytes, at most {} are read", path.string(), size, kMaxConfigBytes);
  std::string text(size, '\0');
  if (auto ok = (*file)->read(0, {reinterpret_cast<uint8_t*>(text.data()), text.size()}); !ok) {
    return tl::unexpected(ok.error());
  }
  return text;
}

}  // namespace

std::string list_names(const std::vector<std::string>& names, size_t shown) {
  std::string text;
  for (size_t i = 0; i < std::min(shown, names.size()); ++i) {
    if (i > 0) text += ", ";
    text += printable(names[i]);
  }
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

Result<AdapterScan> scan_adapter(const fs::path& dir, std::span<const std::string> within) {
  if (auto ok = check_files(dir); !ok) return tl::unexpected(ok.error());
  const auto config_path = dir / "adapter_config.json";
  auto text = read_config(config_path, within);
  if (!text) return tl::unexpected(text.error());
  AdapterScan scan;
  scan.dir = dir;
  auto config = AdapterConfig::parse(*text, config_path.string());
  if (!config) return tl::unexpected(config.error());
  scan.config = std::move(*config);
  scan.config_text = std::move(*text);

  auto file = SafetensorsImage::open(dir / "adapter_model.safetensors", within);
  if (!file) return tl::unexpected(file.error());
  scan.file = std::move(*file);
  std::set<std::string> adapters;
  for (const auto& [name, entry] : scan.file->header().tensors) {
    TensorView view{&entry, {}, scan.file, fmt::format("{}: {}", dir.string(), printable(name))};
    if (auto ok = sort_tensor(name, std::move(view), scan, adapters); !ok) return tl::unexpected(ok.error());
  }
  return scan;
}

Result<bool> is_targeted(const AdapterScan& scan, const std::string& name) {
  auto targeted = scan.config.targets(name);
  if (!targeted || *targeted) return targeted;
  return scan.config.targets(scan.modules.at(name).stored_name);
}

namespace {

// Hashes and looks at every tensor of a file, as `pass` gives them, and makes the digest.
template <class Pass>
Result<void> look_at_tensors(AdapterScan& scan, const TakeTensor& take, const Pass& pass) {
  const auto of_modules = lora_tensors(scan);
  std::vector<std::optional<Sha256::Hash>> hashes(scan.file->header().tensors.size());
  const auto look = [&](size_t index, const TensorEntry& entry, std::span<const uint8_t> bytes) -> Result<void> {
    Sha256 hash;
    hash.add(bytes.data(), bytes.size());
    hashes[index] = hash.end();
    const auto tensor = of_modules.find(&entry);
    if (tensor == of_modules.end()) return {};
    if (auto ok = check_finite(*tensor->second, bytes); !ok || !take) return ok;
    return take(entry, bytes);
  };
  if (auto ok = pass(look); !ok) return ok;
  scan.digest = digest_of(scan.config_text, scan.file->header(), hashes);
  return scan.digest.empty() ? fail("{}: SHA-256 is not available", scan.dir.string()) : Result<void>();
}

}  // namespace

Result<void> stream_tensors(AdapterScan& scan, int threads, const TakeTensor& take) {
  return look_at_tensors(scan, take, [&](const auto& look) { return scan.file->stream_data(threads, look); });
}

Result<void> read_tensors(AdapterScan& scan, int threads) {
  const auto pass = [&](const auto& look) { return scan.file->read_data(threads, look); };
  if (auto ok = look_at_tensors(scan, nullptr, pass); !ok) return ok;
  const auto fill = [&](TensorView& view) {
    view.bytes = scan.file->data().subspan(view.entry->begin, view.entry->end - view.entry->begin);
  };
  for (auto& item : scan.modules) {
    AdapterModule& module = item.second;
    for (auto* view : {&module.a, &module.b, &module.magnitude}) {
      if (*view) fill(**view);
    }
  }
  for (BaseCopy& copy : scan.base_copies) fill(copy.tensor);
  return {};
}

}  // namespace lorikeet::model
