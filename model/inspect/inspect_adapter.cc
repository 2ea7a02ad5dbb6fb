#include <algorithm>
#include <utility>

#include "model/adapter/adapter.h"
#include "model/adapter/adapter_place.h"
#include "model/adapter/adapter_scan.h"
#include "model/checkpoint/shard_plan.h"
#include "model/checkpoint/stored_names.h"
#include "model/inspect/inspect.h"

namespace lorikeet::model {
namespace {

constexpr uint64_t kMaxDigestedBytes = 16ull << 30;

void describe(const AdapterScan& scan, const std::optional<ModelConfig>& base, AdapterReport& report) {
  report.rslora = scan.config.uses_rslora();
  report.dora = scan.config.uses_dora();
  report.strange_tensors = scan.strange;
  report.file_bytes = scan.file->data_size();
  for (const auto& [name, module] : scan.modules) {
    AdapterModuleReport row;
    row.module = name;
    row.rank = scan.config.rank_of(name, module.stored_name).value_or(0);
    row.scale = scan.config.scale_of(name, module.stored_name).value_or(0);
    row.dtype = module.a ? module.a->entry->dtype_name : module.b ? module.b->entry->dtype_name : "";
    row.dora = module.magnitude.has_value();
    row.matched = base && find_adapter_place(*base, name, module.is_embedding).has_value();
    report.modules.push_back(std::move(row));
  }
  for (const std::string& target : scan.config.target_names()) {
    const bool used = std::any_of(scan.modules.begin(), scan.modules.end(),
                                  [&](const auto& item) { return ends_with_name(item.first, target); });
    if (!used) report.targets_without_tensors.push_back(target);
  }
}

AdapterSizeReport report_size(const Adapter& adapter, const ModelConfig& base, int size) {
  AdapterSizeReport report;
  report.size = size;
  auto plan = ShardPlan::make(base, size);
  if (!plan) {
    report.refusal = plan.error().message;
    return report;
  }
  for (int rank = 0; rank < size; ++rank) {
    report.bytes.push_back(cut_adapter(adapter, *plan, rank).bytes);
  }
  return report;
}

}  // namespace

AdapterReport inspect_adapter(const std::filesystem::path& dir, const std::optional<ModelConfig>& base) {
  AdapterReport report;
  report.dir = dir;
  report.judged = base.has_value();
  auto scan = scan_adapter(dir);
  if (!scan) {
    report.refusal = scan.error().message;
    return report;
  }
  describe(*scan, base, report);
  auto adapter = base ? read_adapter(dir, *base) : Result<Adapter>(Adapter{});
  // A digest is worth reading a refused adapter to its end, unless it is absurdly large.
  if (scan->file->data_size() <= kMaxDigestedBytes) {
    if (auto ok = read_tensors(*scan); !ok) report.refusal = ok.error().message;
    report.digest = scan->digest;
  }
  if (!base) return report;
  if (!adapter) {
    report.refusal = adapter.error().message;
    return report;
  }
  for (const int size : kInspectedSizes) {
    report.sizes.push_back(report_size(*adapter, *base, size));
  }
  return report;
}

}  // namespace lorikeet::model
