#include "model/checkpoint/checkpoint.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "model/config/strict_json.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr JsonLimits kIndexLimits{64u << 20, 8, 1'000'000};
constexpr size_t kMaxShards = 1024;

bool is_plain_basename(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\\') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

// A shard may be a symlink (hub caches link to blobs beside the snapshot), but the index cannot name one elsewhere by
// path.
Result<std::vector<std::shared_ptr<const SafetensorsFile>>> open_shards(const fs::path& dir, const ShardIndex& index) {
  std::set<std::string> names;
  for (const auto& [tensor, file] : index) names.insert(file);
  if (names.size() > kMaxShards)
    return fail("{}: {} shards, at most {} are read", dir.string(), names.size(), kMaxShards);
  std::vector<std::shared_ptr<const SafetensorsFile>> files;
  std::map<std::string, std::string, std::less<>> home;  // tensor -> shard that holds it
  for (const auto& name : names) {
    auto file = SafetensorsFile::open(dir / name);
    if (!file) return tl::unexpected(file.error());
    for (const auto& [tensor, entry] : (*file)->header().tensors) {
      const auto [it, is_new] = home.emplace(tensor, name);
      if (!is_new) return fail("{}: tensor {} is in both {} and {}", dir.string(), tensor, it->second, name);
    }
    files.push_back(std::move(*file));
  }
  for (const auto& [tensor, file] : index) {
    const auto it = home.find(tensor);
    if (it == home.end() || it->second != file) {
      return fail("{}: the index says that {} holds {}, which it does not", dir.string(), file, tensor);
    }
  }
  if (home.size() != index.size()) {
    const auto extra =
        std::find_if(home.begin(), home.end(), [&](const auto& item) { return !index.count(item.first); });
    return fail("{}: {} holds {}, which the index does not name", dir.string(), extra->second, extra->first);
  }
  return files;
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

}  // namespace

Result<ShardIndex> parse_shard_index(std::string_view text, std::string_view where) {
  auto root = parse_json(text, where, kIndexLimits);
  if (!root) return tl::unexpected(root.error());
  return index_of(*root, where);
}

Result<Checkpoint> Checkpoint::open(const fs::path& dir) {
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  std::error_code error;
  const auto single = dir / "model.safetensors", index_path = dir / "model.safetensors.index.json";
  if (fs::exists(index_path, error)) {
    auto root = read_json_object(index_path, kIndexLimits);
    if (!root) return tl::unexpected(root.error());
    auto index = index_of(*root, index_path.string());
    if (!index) return tl::unexpected(index.error());
    auto files = open_shards(dir, *index);
    if (!files) return tl::unexpected(files.error());
    checkpoint.files_ = std::move(*files);
    return checkpoint;
  }
  if (fs::exists(single, error)) {
    auto file = SafetensorsFile::open(single);
    if (!file) return tl::unexpected(file.error());
    checkpoint.files_.push_back(std::move(*file));
    return checkpoint;
  }
  // AutoGPTQ names its only file after the recipe, such as gptq_model-4bit-128g.safetensors.
  std::vector<fs::path> found;
  bool pickles = false;
  for (const auto& item : fs::directory_iterator(dir, error)) {
    const auto extension = item.path().extension();
    if (extension == ".safetensors") found.push_back(item.path());
    pickles = pickles || extension == ".bin" || extension == ".pt" || extension == ".pth";
  }
  if (found.size() == 1) {
    auto file = SafetensorsFile::open(found[0]);
    if (!file) return tl::unexpected(file.error());
    checkpoint.files_.push_back(std::move(*file));
    return checkpoint;
  }
  if (found.size() > 1) {
    return fail("{}: {} safetensors files and no model.safetensors.index.json that says which belong", dir.string(),
                found.size());
  }
  if (pickles) {
    return fail("{}: only pickled weights (.bin, .pt): they can run code when read; convert them to safetensors",
                dir.string());
  }
  return fail("{}: no model.safetensors and no model.safetensors.index.json", dir.string());
}

std::optional<TensorView> Checkpoint::find(std::string_view name) const {
  for (const auto& file : files_) {
    if (auto view = file->find(name)) return view;
  }
  return std::nullopt;
}

Result<TensorView> Checkpoint::require(std::string_view name) const {
  if (auto view = find(name)) return std::move(*view);
  return fail("{}: no tensor named {}", dir_.string(), name);
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& file : files_) {
    for (const auto& [name, entry] : file->header().tensors) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

uint64_t Checkpoint::tensor_bytes() const {
  uint64_t bytes = 0;
  for (const auto& file : files_) {
    for (const auto& [name, entry] : file->header().tensors) bytes += entry.end - entry.begin;
  }
  return bytes;
}

}  // namespace lorikeet::model
