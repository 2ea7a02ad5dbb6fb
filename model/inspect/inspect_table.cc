#include <algorithm>
#include <map>
#include <tuple>

#include "model/adapter/adapter_scan.h"
#include "model/inspect/inspect.h"

namespace lorikeet::model {
namespace {

std::string size_text(uint64_t bytes) {
  const auto number = static_cast<double>(bytes);
  if (bytes >= 1ull << 30 && bytes % (1ull << 30) == 0) return fmt::format("{} GiB", bytes >> 30);
  if (bytes >= 1ull << 30) return fmt::format("{:.2f} GiB", number / (1ull << 30));
  if (bytes >= 1ull << 20) return fmt::format("{:.1f} MiB", number / (1ull << 20));
  if (bytes >= 1ull << 10) return fmt::format("{:.1f} KiB", number / (1ull << 10));
  return fmt::format("{} B", bytes);
}

// "9.25 GiB", or the range over the ranks where they differ.
std::string range_text(const std::vector<uint64_t>& bytes) {
  const auto [least, most] = std::minmax_element(bytes.begin(), bytes.end());
  const std::string low = size_text(*least), high = size_text(*most);
  return low == high ? high : fmt::format("{} .. {}", low, high);
}

class Table {
 public:
  void line(std::string_view name, std::string_view value) { text_ += fmt::format("{:<18}{}\n", name, value); }
  void row(const std::vector<std::string>& cells) { rows_.push_back(cells); }

  // The rows since the last call, each column as wide as its widest cell.
  void end_rows() {
    std::vector<size_t> widths;
    for (const auto& row : rows_) {
      widths.resize(std::max(widths.size(), row.size()));
      for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    for (const auto& row : rows_) {
      std::string line;
      for (size_t i = 0; i < row.size(); ++i) line += fmt::format("{:<{}}  ", row[i], widths[i]);
      line.erase(line.find_last_not_of(' ') + 1);
      text_ += line + "\n";
    }
    rows_.clear();
  }

  void blank() { text_ += "\n"; }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
  std::vector<std::vector<std::string>> rows_;
};

std::string quantisation_text(const CheckpointReport& report) {
  const ModelConfig& config = *report.config;
  if (config.quant.method == QuantMethod::none) return fmt::format("none ({})", config.torch_dtype);
  std::string text = fmt::format("{} int{}, {}", name_of(config.quant.method), config.quant.bits,
                                 config.quant.symmetric ? "symmetric" : "asymmetric");
  if (config.quant.group_size < 0) {
    text += ", one group over all inputs";
  } else {
    const int32_t group = config.quant.group_size;
    text += fmt::format(", groups of {} ({} over hidden, {} over the MLP)", group,
                        (config.hidden_size + group - 1) / group, (config.intermediate_size + group - 1) / group);
  }
  if (report.act_order) text += ", act-order";
  if (report.dense_modules > 0) {
    text += fmt::format(", {} of {} linear layers unquantised", report.dense_modules,
                        report.dense_modules + report.quantised_modules);
  }
  return text;
}

// Modules that differ in their layer alone become one row: "model.layers.*.mlp.up_proj".
std::string without_layer(const std::string& module) {
  size_t begin = module.find('.');
  while (begin != std::string::npos) {
    const size_t end = module.find('.', begin + 1);
    if (end == std::string::npos) break;
    const std::string segment = module.substr(begin + 1, end - begin - 1);
    if (!segment.empty() && segment.find_first_not_of("0123456789") == std::string::npos) {
      return module.substr(0, begin + 1) + "*" + module.substr(end);
    }
    begin = end;
  }
  return module;
}

void add_modules(const AdapterReport& report, Table& table) {
  using Key = std::tuple<std::string, int32_t, float, std::string, bool, bool>;
  std::map<Key, int> rows;
  for (const AdapterModuleReport& m : report.modules) {
    ++rows[{without_layer(m.module), m.rank, m.scale, m.dtype, m.dora, m.matched}];
  }
  table.blank();
  table.row({"module", "count", "rank", "scale", "dtype", "base"});
  for (const auto& [key, count] : rows) {
    const auto& [module, rank, scale, dtype, dora, matched] = key;
    table.row({module, fmt::format("{}", count), fmt::format("{}{}", rank, dora ? " DoRA" : ""),
               fmt::format("{:.6g}", scale), dtype,
               !report.judged ? "-"
               : matched      ? "matched"
                              : "no such module"});
  }
  table.end_rows();
}

std::string eight_bit_text(const CheckpointReport& report) {
  return fmt::format("{} linear layers, {}; de-quantised to 16 bits where --device is cuda: {} in all",
                     report.eight_bit_modules, size_text(report.eight_bit_weights),
                     size_text(2 * report.eight_bit_weights));
}

}  // namespace

std::string eight_bit_cost(const std::filesystem::path& dir) {
  const auto report = count_linear_layers(dir);
  return report && report->eight_bit_modules > 0 ? eight_bit_text(*report) : "";
}

std::string to_table(const CheckpointReport& report) {
  Table table;
  table.line("checkpoint", report.dir.string());
  if (report.config) {
    const ModelConfig& config = *report.config;
    table.line("architecture",
               fmt::format("{}, {} layers, hidden {}, {} heads of {}, {} KV heads, MLP {}, vocabulary {}{}",
                           name_of(config.architecture), config.num_layers, config.hidden_size, config.num_heads,
                           config.head_dim, config.num_kv_heads, config.intermediate_size, config.vocab_size,
                           config.tie_word_embeddings ? ", tied" : ""));
    table.line("positions", fmt::format("{}, RoPE base {:g}{}", config.max_position_embeddings, config.rope_theta,
                                        config.yarn ? fmt::format(", YaRN x{:g} from {}", config.yarn->factor,
                                                                  config.yarn->original_max_position_embeddings)
                                                    : ""));
    table.line("quantisation", quantisation_text(report));
  }
  if (report.eight_bit_modules > 0) {
    table.line("8 bits", eight_bit_text(report));
  }
  if (report.tensors > 0) table.line("tensors", fmt::format("{}, {}", report.tensors, size_text(report.file_bytes)));
  if (!report.sizes.empty()) {
    table.blank();
    std::vector<std::string> header = {"TP", "weights per rank", "MLP per rank", "KV per token"};
    for (const SizeReport& size : report.sizes) {
      if (size.refusal) continue;
      for (const MemoryFit& fit : size.fits) header.push_back("tokens in " + size_text(fit.memory));
      break;
    }
    table.row(header);
    for (const SizeReport& size : report.sizes) {
      if (size.refusal) continue;
      const auto [least, most] = std::minmax_element(size.neurons.begin(), size.neurons.end());
      std::vector<std::string> row = {
          fmt::format("{}", size.size), range_text(size.weight_bytes),
          *least == *most ? fmt::format("{}", *most) : fmt::format("{} .. {}", *least, *most),
          size_text(size.kv_bytes_per_token)};
      for (const MemoryFit& fit : size.fits) row.push_back(fit.tokens == 0 ? "none" : fmt::format("{}", fit.tokens));
      table.row(row);
    }
    table.end_rows();
    for (const SizeReport& size : report.sizes) {
      if (size.refusal) table.line(fmt::format("not at TP {}", size.size), *size.refusal);
    }
  }
  table.blank();
  table.line("verdict", report.refusal ? "cannot be served: " + *report.refusal : "can be served");
  return table.take();
}

std::string to_table(const AdapterReport& report) {
  Table table;
  table.line("adapter", report.dir.string());
  if (!report.digest.empty()) table.line("digest", report.digest);
  if (!report.digest.empty() || !report.modules.empty()) {
    table.line("kind", fmt::format("{}{}, {} modules, {}", report.dora ? "DoRA" : "LoRA",
                                   report.rslora ? ", rank-stabilised scaling" : "", report.modules.size(),
                                   size_text(report.file_bytes)));
    if (!report.modules.empty()) add_modules(report, table);
  }
  if (!report.targets_without_tensors.empty()) {
    table.line("without tensors", list_names(report.targets_without_tensors, 16));
  }
  if (!report.strange_tensors.empty()) table.line("strange tensors", list_names(report.strange_tensors, 16));
  if (!report.sizes.empty()) {
    table.blank();
    table.row({"TP", "adapter per rank"});
    for (const AdapterSizeReport& size : report.sizes) {
      if (!size.refusal) table.row({fmt::format("{}", size.size), range_text(size.bytes)});
    }
    table.end_rows();
    for (const AdapterSizeReport& size : report.sizes) {
      if (size.refusal) table.line(fmt::format("not at TP {}", size.size), *size.refusal);
    }
  }
  table.blank();
  table.line("verdict", report.refusal  ? "cannot be served: " + *report.refusal
                        : report.judged ? "can be served over this base"
                                        : "readable; name the base model to learn whether it can be served");
  return table.take();
}

}  // namespace lorikeet::model
