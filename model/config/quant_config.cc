#include "model/config/quant_config.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "model/config/json_fields.h"
#include "model/config/strict_json.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr int64_t kMaxGroupSize = 1 << 20;
constexpr std::string_view kEoRa = "a low-rank correction of the quantisation (EoRA) is not served";

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

// The first of several spellings that is there.
std::string_view spelling(const JsonFields& fields, std::string_view first, std::string_view second) {
  return !fields.has(first) && fields.has(second) ? second : first;
}

Result<int32_t> group_size_of(const JsonFields& fields, std::string_view key) {
  auto size = fields.integer(key, -1, kMaxGroupSize);
  if (!size) return tl::unexpected(size.error());
  if (*size == 0) return fields.wrong(key, "must be -1 or a positive number");
  return static_cast<int32_t>(*size);
}

Result<int32_t> bits_of(const JsonFields& fields, std::string_view key) {
  auto bits = fields.integer(key, 1, 64);
  if (!bits) return tl::unexpected(bits.error());
  if (*bits != 4 && *bits != 8) return fields.wrong(key, "only 4-bit and 8-bit weights are served");
  return static_cast<int32_t>(*bits);
}

bool is_empty(const json& value) {
  return value.is_null() || ((value.is_object() || value.is_array()) && value.empty());
}

// Weights that are worth something only behind a transform of the activations, by the names that GPTQModel and AutoRound
// give it.
Result<void> refuse_rotations(const JsonFields& fields) {
  for (const char* key : {"rotation", "rotation_config", "hadamard_config"}) {
    const json* rotation = fields.find(key);
    if (rotation != nullptr && !is_unset(*rotation)) return fields.wrong(key, "rotated weights are not served");
  }
  return {};
}

// GPTQModel's settings of single modules, by expressions over their names ("-:" leaves them unquantised). Their tensors
// say what has come of it; only what those cannot say is read here.
Result<void> read_overrides(const JsonFields& fields, QuantConfig& quant) {
  const json* dynamic = fields.find("dynamic");
  if (dynamic == nullptr || is_empty(*dynamic)) return {};
  if (!dynamic->is_object()) return fields.wrong("dynamic", "must be an object of expressions");
  for (const auto& [expression, settings] : dynamic->items()) {
    if (!settings.is_object()) continue;
    const JsonFields module(settings, fmt::format("{}: dynamic: {}", fields.where(), expression));
    if (module.has("sym")) quant.symmetric_is_stated = false;
    if (const json* adapter = module.find("adapter"); adapter != nullptr && !is_empty(*adapter)) {
      return module.wrong("adapter", kEoRa);
    }
  }
  return {};
}

Result<QuantConfig> parse_gptq(const JsonFields& fields) {
  QuantConfig quant;
  auto bits = bits_of(fields, "bits");
  if (!bits) return tl::unexpected(bits.error());
  quant.bits = *bits;
  auto group_size = group_size_of(fields, "group_size");
  if (!group_size) return tl::unexpected(group_size.error());
  quant.group_size = *group_size;

  const std::string_view format_key = spelling(fields, "checkpoint_format", "format");
  auto format = fields.string_or(format_key, "gptq");
  if (!format) return tl::unexpected(format.error());
  if (*format != "gptq" && *format != "gptq_v2") {
    return fields.wrong(format_key, "only \"gptq\" and \"gptq_v2\" are served; convert the checkpoint to one of them");
  }
  if (fields.has("checkpoint_format") && fields.has("format") && *fields.find("format") != json(*format)) {
    return fields.wrong("format", fmt::format("checkpoint_format says {}", *format));
  }
  quant.method = *format == "gptq" ? QuantMethod::gptq : QuantMethod::gptq_v2;

  auto desc_act = fields.boolean_or("desc_act", false);
  auto symmetric = fields.boolean_or("sym", true);
  auto marlin = fields.boolean_or("is_marlin_format", false);
  for (const auto* flag : {&desc_act, &symmetric, &marlin}) {
    if (!*flag) return tl::unexpected(flag->error());
  }
  quant.desc_act = *desc_act;
  quant.symmetric = *symmetric;
  quant.symmetric_is_stated = fields.has("sym");
  if (*marlin) return fields.wrong("is_marlin_format", "Marlin's own packing is not served; use the GPTQ checkpoint");
  if (auto ok = read_overrides(fields, quant); !ok) return tl::unexpected(ok.error());
  if (const json* adapter = fields.find("adapter"); adapter != nullptr && !is_empty(*adapter)) {
    return fields.wrong("adapter", kEoRa);
  }
  auto pack_dtype = fields.string_or("pack_dtype", "int32");
  if (!pack_dtype) return tl::unexpected(pack_dtype.error());
  if (*pack_dtype != "int32") return fields.wrong("pack_dtype", "only int32 words are read");
  return quant;
}

Result<QuantConfig> parse_awq(const JsonFields& fields) {
  QuantConfig quant;
  quant.method = QuantMethod::awq;
  quant.symmetric = false;
  const std::string_view bits_key = spelling(fields, "bits", "w_bit");
  auto bits = bits_of(fields, bits_key);
  if (!bits) return tl::unexpected(bits.error());
  if (*bits != 4) return fields.wrong(bits_key, "only 4-bit weights are served of AWQ");
  auto group_size = group_size_of(fields, spelling(fields, "group_size", "q_group_size"));
  if (!group_size) return tl::unexpected(group_size.error());
  quant.group_size = *group_size;
  auto version = fields.string_or("version", "gemm");
  if (!version) return tl::unexpected(version.error());
  if (lower(*version) != "gemm") return fields.wrong("version", "only AWQ's \"gemm\" packing is served");
  for (const char* key : {"checkpoint_format", "format"}) {  // GPTQModel's names for it
    auto format = fields.string_or(key, "gemm");
    if (!format) return tl::unexpected(format.error());
    if (lower(*format) != "gemm") return fields.wrong(key, "only AWQ's \"gemm\" packing is served");
  }
  auto backend = fields.string_or("backend", "autoawq");
  if (!backend) return tl::unexpected(backend.error());
  if (*backend != "autoawq") return fields.wrong("backend", "only AutoAWQ's packing is served");
  return quant;
}

// Intel's AutoRound packs as GPTQ or AWQ do, and says which in packing_format (older versions: in backend).
Result<QuantConfig> parse_auto_round(const JsonFields& fields) {
  auto type = fields.string_or("data_type", "int");
  auto activations = fields.integer_or("act_bits", 16, 1, 64);
  auto packing = fields.string_or("packing_format", "");
  auto backend = fields.string_or("backend", "auto");
  if (!type) return tl::unexpected(type.error());
  if (!activations) return tl::unexpected(activations.error());
  if (!packing) return tl::unexpected(packing.error());
  if (!backend) return tl::unexpected(backend.error());
  if (lower(*type).substr(0, 3) != "int") return fields.wrong("data_type", "only int weights are served");
  if (*activations < 16) return fields.wrong("act_bits", "quantised activations are not served");
  if (fields.has("super_bits")) return fields.wrong("super_bits", "quantised scales are not served");

  const bool by_backend = packing->empty() && *backend != "auto";
  const std::string text = lower(!packing->empty() ? *packing : by_backend ? *backend : "auto_round:auto_gptq");
  const auto holds = [&](std::string_view part) { return text.find(part) != std::string::npos; };
  if (holds("awq")) {
    QuantConfig quant;
    quant.method = QuantMethod::awq;
    quant.symmetric = false;
    auto group_size = group_size_of(fields, "group_size");
    if (!group_size) return tl::unexpected(group_size.error());
    quant.group_size = *group_size;
    return quant;
  }
  // "auto_round:exllamav2": a kernel alone, and zeros as they are; so has "auto_round:gptqmodel" them.
  constexpr std::array kKernels = {"",
                                   "auto_round",
                                   "auto_round:exllamav2",
                                   "auto_round:gptqmodel",
                                   "auto_round:triton",
                                   "auto_round:tritonv2",
                                   "auto_round:torch",
                                   "auto_round:cuda"};
  const bool plain = std::find(kKernels.begin(), kKernels.end(), text) != kKernels.end();
  if (!plain && !holds("gptq")) {
    return fields.wrong(by_backend ? "backend" : "packing_format", "only the packings of GPTQ and AWQ are served");
  }
  auto quant = parse_gptq(fields);
  if (quant && plain) quant->method = QuantMethod::gptq_v2;
  return quant;
}

// The `weights` arguments of one group of modules.
Result<QuantConfig> parse_weight_scheme(const JsonFields& fields) {
  QuantConfig quant;
  quant.method = QuantMethod::compressed_tensors;
  auto bits = bits_of(fields, "num_bits");
  if (!bits) return tl::unexpected(bits.error());
  quant.bits = *bits;
  auto type = fields.string_or("type", "int");
  if (!type) return tl::unexpected(type.error());
  if (*type != "int") return fields.wrong("type", "only int weights are served");
  auto dynamic = fields.boolean_or("dynamic", false);
  if (!dynamic) return tl::unexpected(dynamic.error());
  if (*dynamic) return fields.wrong("dynamic", "weights quantised at run time are not served");
  auto symmetric = fields.boolean_or("symmetric", true);
  if (!symmetric) return tl::unexpected(symmetric.error());
  quant.symmetric = *symmetric;
  auto strategy = fields.string_or("strategy", fields.has("group_size") ? "group" : "channel");
  if (!strategy) return tl::unexpected(strategy.error());
  if (*strategy == "group") {
    auto group_size = group_size_of(fields, "group_size");
    if (!group_size) return tl::unexpected(group_size.error());
    quant.group_size = *group_size;
  } else if (*strategy == "channel") {
    quant.group_size = -1;
  } else {
    return fields.wrong("strategy", "only \"group\" and \"channel\" are served");
  }
  if (const json* order = fields.find("actorder"); order != nullptr) {
    const std::string text = order->is_string() ? lower(order->get<std::string>()) : "";
    if (order->is_boolean() ? order->get<bool>() : text == "group" || text == "dynamic") {
      quant.desc_act = true;
    } else if (!order->is_boolean() && text != "weight" && text != "static") {
      return fields.wrong("actorder", "must be group, weight or null");
    }
  }
  return quant;
}

Result<QuantConfig> parse_compressed_tensors(const JsonFields& fields) {
  // quantization_status is not read: llm-compressor has written "frozen" on checkpoints that are compressed. The
  // tensors tell.
  auto format = fields.string_or("format", "pack-quantized");
  if (!format) return tl::unexpected(format.error());
  const bool by_group = *format == "mixed-precision";
  if (*format != "pack-quantized" && !by_group) return fields.wrong("format", "only \"pack-quantized\" is served");
  if (fields.has("kv_cache_scheme")) return fields.wrong("kv_cache_scheme", "a quantised KV cache is not served");
  if (const json* sparsity = fields.find("sparsity_config"); sparsity != nullptr && !is_empty(*sparsity)) {
    if (!sparsity->is_object() || sparsity->value("format", json("sparse")) != json("dense")) {
      return fields.wrong("sparsity_config", "sparse weights are not served");
    }
  }
  if (const json* transform = fields.find("transform_config"); transform != nullptr && !is_empty(*transform)) {
    return fields.wrong("transform_config", "transformed weights are not served");
  }
  const json* groups = fields.find("config_groups");
  if (groups == nullptr || !groups->is_object() || groups->empty()) {
    return fields.wrong("config_groups", "must be an object with one group of modules");
  }
  std::optional<QuantConfig> result;
  for (const auto& [name, group] : groups->items()) {
    const std::string where = fmt::format("{}: config_groups.{}", fields.where(), name);
    if (!group.is_object()) return fail("{} is not an object", where);
    const JsonFields group_fields(group, where);
    for (const char* key : {"input_activations", "output_activations"}) {
      if (group_fields.has(key)) return group_fields.wrong(key, "quantised activations are not served");
    }
    auto group_format = group_fields.string_or("format", by_group ? "" : "pack-quantized");
    if (!group_format) return tl::unexpected(group_format.error());
    if (*group_format != "pack-quantized") return group_fields.wrong("format", "only \"pack-quantized\" is served");
    const json* weights = group_fields.find("weights");
    if (weights == nullptr || !weights->is_object()) return group_fields.wrong("weights", "must be an object");
    auto quant = parse_weight_scheme(JsonFields(*weights, where + ".weights"));
    if (!quant) return quant;
    if (result) {  // which of them a module belongs to, its tensors say
      result->symmetric = result->symmetric || quant->symmetric;
      result->desc_act = result->desc_act || quant->desc_act;
    } else {
      result = *quant;
    }
  }
  return *result;
}

}  // namespace

Result<QuantConfig> parse_quant_config(const json& object, const std::string& where, std::string_view default_method) {
  const JsonFields fields(object, where);
  if (auto ok = refuse_rotations(fields); !ok) return tl::unexpected(ok.error());
  if (fields.has("config_groups")) default_method = "compressed-tensors";
  if (fields.has("packing_format")) default_method = "auto-round";
  if (fields.has("zero_point") || fields.has("w_bit")) default_method = "awq";
  auto method = fields.string_or("quant_method", std::string(default_method));
  if (!method) return tl::unexpected(method.error());
  std::string name = lower(*method);
  std::replace(name.begin(), name.end(), '_', '-');
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (is_one_of({"gptq", "auto-gptq", "gptqmodel", "gptq-marlin"})) return parse_gptq(fields);
  if (is_one_of({"awq", "auto-awq", "autoawq", "awq-marlin"})) return parse_awq(fields);
  if (is_one_of({"auto-round", "intel/auto-round", "autoround", "inc"})) return parse_auto_round(fields);
  if (name == "compressed-tensors") return parse_compressed_tensors(fields);
  return fields.wrong("quant_method", "only gptq, awq and compressed-tensors are served, and auto-round's checkpoints");
}

Result<QuantConfig> read_quant_config(const std::filesystem::path& dir, const json& config) {
  struct Place {
    std::string_view name;  // in errors
    QuantConfig quant;
  };
  std::vector<Place> places;
  // llm-compressor's older name comes second.
  for (const auto& [key, method] :
       {std::pair("quantization_config", "gptq"), std::pair("compression_config", "compressed-tensors")}) {
    const auto it = config.find(key);
    if (it == config.end() || is_empty(*it)) continue;  // {} and null: the weights are not quantised
    const std::string where = fmt::format("{}: {}", (dir / "config.json").string(), key);
    if (!it->is_object()) return fail("{} is not an object", where);
    auto quant = parse_quant_config(*it, where, method);
    if (!quant) return quant;
    places.push_back({"config.json", *quant});
  }
  // AutoGPTQ's file and AutoAWQ's, neither of which names its method, and AutoRound's.
  for (const auto& [file, method] : {std::pair("quantize_config.json", "gptq"), std::pair("quant_config.json", "awq"),
                                     std::pair("quantization_config.json", "gptq")}) {
    const auto path = dir / file;
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    auto object = read_json_object(path);
    if (!object) return tl::unexpected(object.error());
    auto quant = parse_quant_config(*object, path.string(), method);
    if (!quant) return quant;
    places.push_back({file, *quant});
  }
  for (size_t i = 1; i < places.size(); ++i) {
    const QuantConfig &first = places[0].quant, &other = places[i].quant;
    const auto disagree = [&](std::string_view key, const auto& a, const auto& b) {
      return fail("{}: {} says {} {}, {} says {}", dir.string(), places[0].name, key, a, places[i].name, b);
    };
    if (first.method != other.method) return disagree("method", name_of(first.method), name_of(other.method));
    if (first.bits != other.bits) return disagree("bits", first.bits, other.bits);
    if (first.group_size != other.group_size) return disagree("group_size", first.group_size, other.group_size);
    if (first.desc_act != other.desc_act) return disagree("desc_act", first.desc_act, other.desc_act);
    const bool both_say = first.symmetric_is_stated && other.symmetric_is_stated;
    if (both_say && first.symmetric != other.symmetric) return disagree("sym", first.symmetric, other.symmetric);
  }
  return places.empty() ? QuantConfig{} : places[0].quant;
}

}  // namespace lorikeet::model
