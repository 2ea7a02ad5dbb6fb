// HostAdapters as the status shows them.
#include <algorithm>

#include "actors/head/host_adapters.h"

namespace lorikeet::actors {

HostAdapters::Row HostAdapters::row_of(const std::string& name, const std::string& dir, const Content* content) {
  Row row;
  row.name = name;
  row.dir = dir;
  row.host = "on_disk";
  if (content == nullptr) return row;
  row.digest = content->digest;
  row.max_rank = content->max_rank;
  row.claims = content->claims;
  row.bytes = content->bytes;
  row.set_aside = content->set_aside();
  if (content->staged != nullptr) row.host = "staged";
  return row;
}

HostAdapters::Row HostAdapters::row_of(const Name& name) {
  Row row = row_of(name.name, name.dir, name.content);
  row.error = name.error;
  row.kept = name.kept;
  if (name.content != nullptr && name.content->set_aside()) row.error = why_set_aside(*name.content);
  if (name.work == Work::reading) row.host = "reading";
  if (name.work == Work::queued || name.work == Work::parked) row.host = "waiting_for_memory";
  return row;
}

std::vector<HostAdapters::Row> HostAdapters::rows() const {
  std::vector<Row> rows;
  names_.for_each([&rows](const Name& entry) { rows.push_back(row_of(entry)); });
  const auto by_name = [](const Row& a, const Row& b) { return a.name < b.name; };
  std::sort(rows.begin(), rows.end(), by_name);
  const auto num_names = static_cast<ptrdiff_t>(rows.size());
  for (const auto& [key, entry] : hidden_) {
    if (entry->content == nullptr) continue;
    rows.push_back(row_of(entry->name, entry->dir, entry->content));
    rows.back().host = entry->leaves ? "replaced" : "loading";
  }
  contents_.for_each([&](const Content& content) {
    if (!content.leading.empty()) return;
    rows.push_back(row_of(content.name, content.dir, &content));
    rows.back().host = "replaced";
  });
  std::sort(rows.begin() + num_names, rows.end(), by_name);
  return rows;
}

std::vector<HostAdapters::Row> HostAdapters::rows(const std::vector<std::string>& digests, size_t others) const {
  std::set<const Content*> near;
  const auto add = [&near](const Content& content) { near.insert(&content); };
  idle_.for_each(add);
  for (const ContentList& list : lists_) list.for_each(add);
  for (const std::string& digest : digests) {
    if (const Content* const found = contents_.find(digest)) near.insert(found);
  }
  std::vector<Row> rows;
  std::set<const Name*> listed;
  for (const Content* content : near) {
    for (const Name* name : content->leading) {
      if (names_.find(name->name) == name) {
        rows.push_back(row_of(*name));
        listed.insert(name);
      } else {  // no request finds it
        rows.push_back(row_of(name->name, name->dir, content));
        rows.back().host = name->leaves ? "replaced" : "loading";
      }
    }
    if (!content->leading.empty()) continue;
    rows.push_back(row_of(content->name, content->dir, content));
    rows.back().host = "replaced";
  }
  names_.for_some(others, [&](const Name& name) {
    if (!listed.contains(&name)) rows.push_back(row_of(name));
  });
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.name < b.name; });
  return rows;
}

}  // namespace lorikeet::actors
