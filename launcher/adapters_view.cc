#include "launcher/adapters_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "launcher/help_formatter.h"
#include "launcher/text_table.h"
#include "launcher/units.h"

namespace lorikeet::launcher {
namespace {

using actors::ListedAdapter;

constexpr size_t kMostShown = 32;  // adapters

int distance_from_use(const ListedAdapter& adapter) {
  if (adapter.leases + adapter.claims > 0) return 0;
  return adapter.tier == "slot" ? 1 : adapter.tier == "host" ? 2 : 3;
}

std::string marks_of(const ListedAdapter& adapter) {
  std::string marks;
  const auto add = [&](bool is, const char* mark) {
    if (is) marks += (marks.empty() ? "" : ", ") + std::string(mark);
  };
  add(adapter.pinned, "pinned");
  add(adapter.set_aside, "set aside");
  add(adapter.replaced, "replaced");
  return marks;
}

std::string count(uint64_t value) {
  return count_text(static_cast<int64_t>(value));
}

}  // namespace

std::string adapters_table(const actors::AdapterList& list, const Terminal& terminal) {
  std::vector<const ListedAdapter*> adapters;
  for (const ListedAdapter& adapter : list.adapters) adapters.push_back(&adapter);
  std::stable_sort(adapters.begin(), adapters.end(), [](const ListedAdapter* a, const ListedAdapter* b) {
    return distance_from_use(*a) < distance_from_use(*b);
  });
  if (adapters.empty()) return "";
  const size_t shown = std::min(adapters.size(), kMostShown);
  std::vector<Column> columns = {{"name"},       {"tier"},          {"slot", true},  {"rank", true},
                                 {"size", true}, {"running", true}, {"wanted", true}};
  const bool marked = std::any_of(adapters.begin(), adapters.begin() + static_cast<std::ptrdiff_t>(shown),
                                  [](const ListedAdapter* adapter) { return !marks_of(*adapter).empty(); });
  if (marked) columns.push_back({"is"});
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < shown; ++i) {
    const ListedAdapter& a = *adapters[i];
    std::vector<std::string> row = {a.name,
                                    a.tier,
                                    a.slot ? fmt::format("{}", *a.slot) : "-",
                                    a.rank > 0 ? fmt::format("{}", a.rank) : "-",
                                    a.bytes > 0 ? bytes_text(a.bytes) : "-",
                                    count(a.leases),
                                    count(a.claims)};
    if (marked) row.push_back(marks_of(a));
    rows.push_back(std::move(row));
  }
  std::string out = text_table(columns, rows, terminal.columns);
  for (size_t i = 0; i < shown; ++i) {
    if (!adapters[i]->error) continue;
    const std::string text = adapters[i]->name + ": " + *adapters[i]->error;
    out += "  " + coloured(terminal, "31", wrap(text, terminal.columns - 4, 4)) + "\n";
  }
  if (adapters.size() > shown) {
    out += fmt::format("  and {} more; --json has all\n", count(adapters.size() - shown));
  }
  return out;
}

}  // namespace lorikeet::launcher
