#include "model/checkpoint/checkpoint.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "model/checkpoint/stored_names.h"
#include "model/config/strict_json.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr JsonLimits kIndexLimits{64u << 20, 8, 1'000'000};
constexpr size_t kMaxShards = 1024;
constexpr std::string_view kSingle = "model.safetensors", kIndex = "model.safetensors.index.json",
                           kIndexEnd = ".safetensors.index.json";

bool is_plain_basename(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\\') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

using Files = std::vector<std::shared_ptr<const SafetensorsFile>>;
using Homes = std::map<std::string, std::string, std::less<>>;  // tensor -> file that holds it

Result<Files> open_all(const fs::path& dir, const std::set<std::string>& names, Homes& home) {
  if (names.size() > kMaxShards) {
    return fail("{}: {} shards, at most {} are read", dir.string(), names.size(), kMaxShards);
  }
  Files files;
  for (const auto& name : names) {
    auto file = SafetensorsFile::open(dir / name);
    if (!file) return tl::unexpected(file.error());
    for (const auto& [tensor, entry] : (*file)->header().tensors) {
      const auto [it, is_new] = home.emplace(tensor, name);
      if (!is_new) return fail("{}: tensor {} is in both {} and {}", dir.string(), tensor, it->second, name);
    }
    files.push_back(std::move(*file));
  }
  return files;
}

// The index says which files belong; what is in them their own headers say, as for those who load whole files (tools
// that merge or cut checkpoints leave tensors out of it, or in it). A shard may be a symlink (hub caches link to blobs
// beside the snapshot), but the index cannot name one elsewhere by path.
Result<Files> open_shards(const fs::path& dir, const ShardIndex& index) {
  std::set<std::string> names;
  for (const auto& [tensor, file] : index) names.insert(file);
  Homes home;
  return open_all(dir, names, home);
}

Result<ShardIndex> index_of(const json& root, std::string_view where) {
  const auto map = root.is_object() ? root.find("weight_map") : root.end();
  if (map == root.end() || !map->is_object()) return fail("{}: weight_map is missing or not an object", where);
  if (map->empty()) return fail("{}: weight_map is empty", where);
  ShardIndex index;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) return fail("{}: the file of {} is not a string", where, tensor);
    const auto name = file.get<std::string>();
    if (!is_plain_basename(name))
      return fail("{}: \"{}\" is not the plain name of a file beside the index", where, name);
    index.emplace(tensor, name);
  }
  return index;
}

// All names of a set "NAME-00001-of-00003.safetensors", if `found` is one.
bool is_complete_set(const std::vector<std::string>& found) {
  constexpr size_t kEnd = std::string_view("-00001-of-00003.safetensors").size();
  for (size_t i = 0; i < found.size(); ++i) {
    const std::string& name = found[i];
    if (name.size() <= kEnd || name.substr(0, name.size() - kEnd) != found[0].substr(0, found[0].size() - kEnd)) {
      return false;
    }
    if (name.substr(name.size() - kEnd) != fmt::format("-{:05}-of-{:05}.safetensors", i + 1, found.size()))
      return false;
  }
  return !found.empty();
}

// What the directory holds, by kind; names sorted.
struct Listing {
  std::vector<std::string> tensors, indices;
  bool pickles = false, gguf = false;
};

Listing list(const fs::path& dir) {
  Listing listing;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(dir, error)) {
    const std::string name = item.path().filename().string();
    const auto extension = item.path().extension();
    if (extension == ".safetensors") listing.tensors.push_back(name);
    if (name.size() > kIndexEnd.size() && name.substr(name.size() - kIndexEnd.size()) == kIndexEnd) {
      listing.indices.push_back(name);
    }
    listing.pickles = listing.pickles || extension == ".bin" || extension == ".pt" || extension == ".pth";
    listing.gguf = listing.gguf || extension == ".gguf";
  }
  std::sort(listing.tensors.begin(), listing.tensors.end());
  std::sort(listing.indices.begin(), listing.indices.end());
  return listing;
}

// An index beside model.safetensors is usually what a tool copied along with the other JSON files of its source, whose
// shards are not there.
bool is_left_over(const fs::path& dir, const ShardIndex& index) {
  std::error_code error;
  return std::none_of(index.begin(), index.end(),
                      [&](const auto& item) { return fs::exists(dir / item.second, error); });
}

Result<Files> open_files(const fs::path& dir) {
  const Listing listing = list(dir);
  const auto has = [](const std::vector<std::string>& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const bool single = has(listing.tensors, kSingle);
  // AutoGPTQ names its files after the recipe, such as gptq_model-4bit-128g.safetensors.
  std::optional<std::string> index_name;
  if (has(listing.indices, kIndex)) {
    index_name = kIndex;
  } else if (listing.indices.size() == 1 && !single) {
    index_name = listing.indices[0];
  }
  if (index_name) {
    auto root = read_json_object(dir / *index_name, kIndexLimits);
    if (!root) return tl::unexpected(root.error());
    auto index = index_of(*root, (dir / *index_name).string());
    if (!index) return tl::unexpected(index.error());
    const bool names_single =
        std::any_of(index->begin(), index->end(), [](const auto& item) { return item.second == kSingle; });
    if (!single || names_single) return open_shards(dir, *index);
    if (!is_left_over(dir, *index)) {
      return fail("{}: {} and the shards of {} are both there: which of them is the model cannot be told", dir.string(),
                  kSingle, *index_name);
    }
  }
  Homes home;
  if (single) return open_all(dir, {std::string(kSingle)}, home);
  if (listing.tensors.size() == 1 || is_complete_set(listing.tensors)) {
    return open_all(dir, {listing.tensors.begin(), listing.tensors.end()}, home);
  }
  if (listing.tensors.size() > 1) {
    return fail("{}: {} safetensors files and no {} that says which belong", dir.string(), listing.tensors.size(),
                kIndex);
  }
  if (listing.pickles) {
    return fail("{}: only pickled weights (.bin, .pt): they can run code when read; convert them to safetensors",
                dir.string());
  }
  if (listing.gguf) {
    return fail("{}: only GGUF, which is not served; take the model's safetensors (GPTQ, AWQ, compressed-tensors)",
                dir.string());
  }
  return fail("{}: no {} and no {}", dir.string(), kSingle, kIndex);
}

}  // namespace

Result<ShardIndex> parse_shard_index(std::string_view text, std::string_view where) {
  auto root = parse_json(text, where, kIndexLimits);
  if (!root) return tl::unexpected(root.error());
  return index_of(*root, where);
}

Result<Checkpoint> Checkpoint::open(const fs::path& dir) {
  auto files = open_files(dir);
  if (!files) return tl::unexpected(files.error());
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  if (auto ok = checkpoint.name_tensors(*files); !ok) return tl::unexpected(ok.error());
  return checkpoint;
}

Result<void> Checkpoint::name_tensors(const Files& files) {
  std::vector<std::string> stored;
  for (const auto& file : files) {
    for (const auto& [name, entry] : file->header().tensors) stored.push_back(name);
  }
  const StoredNames names(stored);
  for (const auto& file : files) {
    for (const auto& [name, entry] : file->header().tensors) {
      const auto [it, is_new] = places_.emplace(names.name_of(name), Place{file, name});
      if (!is_new) {
        return fail("{}: the tensors {} and {} are for one place", dir_.string(), it->second.stored_name, name);
      }
    }
  }
  return {};
}

std::optional<TensorView> Checkpoint::find(std::string_view name) const {
  const auto it = places_.find(name);
  if (it == places_.end()) return std::nullopt;
  return it->second.file->find(it->second.stored_name);
}

Result<TensorView> Checkpoint::require(std::string_view name) const {
  if (auto view = find(name)) return std::move(*view);
  return fail("{}: no tensor named {}", dir_.string(), name);
}

Result<TensorView> Checkpoint::read(std::string_view name) const {
  auto view = require(name);
  if (!view) return view;
  if (auto ok = read_bytes(*view); !ok) return tl::unexpected(ok.error());
  return view;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : places_) names.push_back(name);
  return names;
}

uint64_t Checkpoint::tensor_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [name, place] : places_) {
    const TensorEntry& entry = place.file->header().tensors.find(place.stored_name)->second;
    bytes += entry.end - entry.begin;
  }
  return bytes;
}

}  // namespace lorikeet::model
