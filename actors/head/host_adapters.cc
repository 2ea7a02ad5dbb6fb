#include "actors/head/host_adapters.h"

#include <glog/logging.h>

#include <algorithm>
#include <limits>

#include "actors/head/adapter_key.h"

namespace lorikeet::actors {

namespace {

// The share of the memory for new contents, before they compete with those that stay.
constexpr uint64_t kRecentBytesShare = 8;

HostAdapters::Limits with_defaults(HostAdapters::Limits limits) {
  if (limits.count <= 0) limits.count = std::numeric_limits<int32_t>::max();
  return limits;
}

}  // namespace

HostAdapters::HostAdapters(Limits limits, const std::vector<std::pair<std::string, std::string>>& modules)
    : most_(static_cast<uint64_t>(std::max(0, limits.count))),
      limits_(with_defaults(limits)),
      idle_(uses_, limits.bytes / kRecentBytesShare) {
  names_.reserve(modules.size());
  contents_.reserve(modules.size());
  for (const auto& [name, dir] : modules) {
    if (Name* const twice = names_.find(name)) {
      twice->dir = dir;
    } else {
      names_.insert(make_name(name, name, dir));
    }
  }
}

engine::RecordPool<HostAdapters::Name>::Pointer HostAdapters::make_name(const std::string& name, const std::string& key,
                                                                        std::string dir) {
  auto made = name_pool_.make();
  made->name = name;
  made->key = key;
  made->dir = std::move(dir);
  return made;
}

HostAdapters::Name* HostAdapters::find_hidden(const std::string& key) const {
  const auto it = hidden_.find(key);
  return it != hidden_.end() ? it->second.get() : nullptr;
}

// Null: the name that the work was for is gone.
HostAdapters::Name* HostAdapters::find_work(const std::string& key) {
  if (Name* const hidden = find_hidden(key)) return hidden;
  Name* const name = names_.find(is_loaded_key(key) ? name_in_key(key) : key);
  return name != nullptr && name->key == key ? name : nullptr;
}

std::vector<HostAdapters::Effect> HostAdapters::take_effects() {
  erase_rests();
  return std::exchange(effects_, {});
}

// ---- requests

void HostAdapters::resolve(Id id, const std::string& name) {
  Name* const entry = names_.find(name);
  if (entry == nullptr) {
    effects_.push_back(Resolved{id, "", "there is no adapter " + name, true});
    return;
  }
  if (entry->content != nullptr) engine::prefetch_record(entry->content);
  requests_[id] = {entry, nullptr};
  entry->late.insert(id);
  if (entry->work == Work::none) start_check(*entry);
}

void HostAdapters::unclaim(Id id, AdapterOutcome outcome) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  const Request request = it->second;
  requests_.erase(it);
  if (request.content != nullptr) {
    Content& content = *request.content;
    --content.claims;
    if (outcome == AdapterOutcome::no_token) ++content.without_token;
    if (outcome == AdapterOutcome::success && !content.set_aside()) content.without_token = 0;
    effects_.push_back(Unclaimed{content.digest});
    released(content);
  } else {
    stop_waiting(*request.name, id);
  }
}

void HostAdapters::stop_waiting(Name& name, Id id) {
  name.waiters.erase(id);
  name.late.erase(id);
  if (name.awaited()) return;
  switch (name.work) {
    case Work::checking:
    case Work::reading:
      effects_.push_back(Cancel{name.key});
      break;
    case Work::queued:
      memory_queue_.erase(name.ticket);
      name.work = Work::none;
      serve_memory_queue();
      break;
    case Work::parked:
      name.content->parked.erase(&name);
      name.work = Work::none;
      break;
    case Work::none:
      break;
  }
  note_rest(name);
}

void HostAdapters::answer(std::set<Id> ids, Content* content, const std::string& error) {
  for (const Id id : ids) {
    if (content == nullptr) {
      requests_.erase(id);
      effects_.push_back(Resolved{id, "", error});
    } else {
      ++content->claims;
      uses_.add(content->eviction.hash);
      requests_[id] = {nullptr, content};
      effects_.push_back(Resolved{id, content->digest, ""});
    }
  }
  if (content != nullptr) file(*content);
}

// ---- looks at the files, readings

void HostAdapters::start_check(Name& name) {
  name.work = Work::checking;
  name.waiters.merge(name.late);
  effects_.push_back(Check{name.key, name.dir});
}

void HostAdapters::start_read(Name& name) {
  name.work = Work::reading;
  name.waiters.merge(name.late);  // it looks at the files again
  effects_.push_back(Read{name.key, name.dir, name.file_bytes});
}

// The name's work is done and its waiters are answered: requests that came meanwhile are next.
void HostAdapters::go_on(Name& name) {
  name.work = Work::none;
  if (name.awaited()) start_check(name);
  note_rest(name);
}

void HostAdapters::fail_waiters(Name& name, std::string error) {
  name.error = std::move(error);
  answer(std::exchange(name.waiters, {}), nullptr, name.error);
  go_on(name);
}

void HostAdapters::checked(const std::string& name, const FileStamp& stamp, const std::string& error) {
  Name* const known = find_work(name);
  if (known == nullptr || known->work != Work::checking) return;
  Name& entry = *known;
  if (entry.content !=
      nullptr) {  // what a claim touches: the digest, the count of references, the neighbours on a list
    __builtin_prefetch(entry.content->digest.data());
    engine::prefetch_record(entry.content->staged.get());
    __builtin_prefetch(entry.content->links.before, 1);
    __builtin_prefetch(entry.content->links.behind, 1);
  }
  entry.file_bytes = static_cast<uint64_t>(std::max<int64_t>(0, stamp.tensors.bytes));
  if (!entry.awaited()) {  // nobody wants it any more
    entry.work = Work::none;
    note_rest(entry);
  } else if (!error.empty()) {
    fail_waiters(entry, error);
  } else if (stamp.is_missing() && entry.content != nullptr && entry.content->staged != nullptr) {
    entry.error = entry.dir + ": its files are gone; what they held is served from memory until others are there";
    give(entry, *entry.content);
  } else if (entry.content == nullptr || !entry.stamp.still_holds(stamp)) {
    start_read(entry);
  } else if (entry.content->staged != nullptr || entry.content->set_aside()) {
    entry.error.clear();
    give(entry, *entry.content);
  } else if (!can_ever_fit(entry.content->bytes)) {
    fail_waiters(entry, why_it_cannot_fit(entry.content->bytes));
  } else if (memory_queue_.empty() && make_room(entry.content->bytes)) {
    read_into_place(entry, entry.content->bytes);
  } else {
    queue_for_memory(entry, entry.content->bytes);
    serve_memory_queue();
  }
}

void HostAdapters::read(const std::string& name, const FileStamp& stamp,
                        Result<std::shared_ptr<const StagedAdapter>> adapter) {
  Name* const known_name = find_work(name);
  if (known_name == nullptr || known_name->work != Work::reading) return;
  Name& entry = *known_name;
  const bool had_place = leave_place(entry);
  if (!adapter) {
    unreadable(entry, stamp, adapter.error().message);
  } else if (Content* const known = contents_.find((*adapter)->digest);
             known != nullptr && (known->staged != nullptr || known->set_aside())) {
    lead(entry, *known, stamp);
  } else if (const uint64_t bytes = (*adapter)->bytes; !can_ever_fit(bytes)) {
    fail_waiters(entry, why_it_cannot_fit(bytes));
  } else if (!entry.awaited() && !(memory_queue_.empty() && fits(bytes, {}))) {
    entry.work = Work::none;  // nobody wants it any more, and it would displace another content
    note_rest(entry);
  } else if ((had_place || memory_queue_.empty()) && make_room(bytes)) {
    lead(entry, stage(*std::move(adapter)), stamp);
  } else {
    queue_for_memory(entry, bytes);  // this copy is dropped; it is read again when there is room
  }
  serve_memory_queue();
}

// While one adapter is copied over another, file by file, the directory holds neither. As long as the last write is this
// recent, that is not an error yet.
void HostAdapters::unreadable(Name& name, const FileStamp& stamp, const std::string& why) {
  const bool just_written = stamp.young;
  if (just_written && name.awaited() && name.content != nullptr && name.content->staged != nullptr) {
    name.error = why + "; its files were written just now: what they held before is served until they are whole";
    give(name, *name.content);
  } else if (just_written && !stamp.is_missing()) {
    const char* const again =
        find_hidden(name.key) == &name
            ? ": if they are being copied, load it again when they are whole"
            : ", and every request looks at them anew: if they are being copied, ask again when they are whole";
    fail_waiters(name, why + "; its files were written just now" + again);
  } else {
    fail_waiters(name, why);
  }
}

void HostAdapters::cancelled(const std::string& name) {
  Name* const known = find_work(name);
  if (known == nullptr || (known->work != Work::checking && known->work != Work::reading)) return;
  Name& entry = *known;
  leave_place(entry);
  go_on(entry);
  serve_memory_queue();
}

// The name's files were found to hold the content, which is staged or set aside.
void HostAdapters::lead(Name& name, Content& content, const FileStamp& stamp) {
  name.stamp = stamp;
  name.error.clear();
  content.name = name.name;
  content.dir = name.dir;
  Content* before = std::exchange(name.content, &content);
  if (before == &content) return give(name, content);
  content.leading.insert(&name);
  if (name.kept) change_keepers(content, true);
  give(name, content);
  if (before == nullptr) return;
  before->leading.erase(&name);
  name.kept ? change_keepers(*before, false) : drop_if_stale(*before);
}

void HostAdapters::give(Name& name, Content& content) {
  if (content.set_aside()) {
    fail_waiters(name, why_set_aside(content));
  } else if (content.place == Place::draining) {
    name.work = Work::parked;
    content.parked.insert(&name);
  } else {
    answer(std::exchange(name.waiters, {}), &content, "");
    go_on(name);
  }
}

std::string HostAdapters::why_set_aside(const Content& content) {
  return content.dir + ": set aside, since " + std::to_string(content.without_token) +
         " requests in a row ended without a token, their logits being not finite; it is served again when its files " +
         "are replaced";
}

// ---- memory

void HostAdapters::pin(const std::string& digest) {
  Content* const content = contents_.find(digest);
  if (content == nullptr) return;
  ++content->pins;
  file(*content);
}

void HostAdapters::unpin(const std::string& digest) {
  Content* const content = contents_.find(digest);
  if (content == nullptr) return;
  --content->pins;
  released(*content);
}

std::shared_ptr<const StagedAdapter> HostAdapters::staged(const std::string& digest) const {
  const Content* const content = contents_.find(digest);
  return content != nullptr ? content->staged : nullptr;
}

HostAdapters::Content& HostAdapters::stage(std::shared_ptr<const StagedAdapter> adapter) {
  Content* known = contents_.find(adapter->digest);
  if (known == nullptr) {
    auto made = content_pool_.make();
    made->digest = adapter->digest;
    made->eviction.hash = std::hash<std::string>{}(adapter->digest);
    known = &contents_.insert(std::move(made));
  }
  Content& content = *known;
  content.bytes = content.eviction.weight = adapter->bytes;
  content.max_rank = adapter->max_rank;
  content.staged = std::move(adapter);
  put(content, Place::held);  // give() finds out whether it is
  staged_bytes_ += content.bytes;
  ++staged_count_;
  return content;
}

// Puts the content at the end of its place's list, into the eviction order if nobody holds it, or nowhere.
void HostAdapters::put(Content& content, Place place) {
  if (content.place == Place::idle) {
    idle_.erase(content);
  } else if (content.place != Place::on_disk) {
    list(content.place).erase(content);
  }
  if (content.place == Place::kept) kept_bytes_ -= content.bytes;
  if (content.place == Place::draining) draining_bytes_ -= content.bytes;
  content.place = place;
  if (place == Place::idle) {
    idle_.push(content);
  } else if (place != Place::on_disk) {
    list(place).push_back(content);
  }
  if (place == Place::kept) kept_bytes_ += content.bytes;
  if (place == Place::draining) draining_bytes_ += content.bytes;
}

// Puts a staged content at the end of the list where it belongs.
void HostAdapters::file(Content& content) {
  if (content.place == Place::on_disk || content.place == Place::draining) return;
  put(content, content.keepers > 0 ? Place::kept : content.held() ? Place::held : Place::idle);
}

void HostAdapters::released(Content& content) {
  if (content.held()) return;
  if (content.leading.empty()) {
    drop_if_stale(content);
  } else if (content.place == Place::draining) {
    evict(content);
  } else {
    file(content);
  }
  serve_memory_queue();
}

// Drops the content from memory. Names that waited for this read it again, after those for which it gave way.
void HostAdapters::evict(Content& content) {
  put(content, Place::on_disk);
  content.staged = nullptr;
  content.eviction.settled = false;
  staged_bytes_ -= content.bytes;
  --staged_count_;
  if (!content.leading.empty()) ++evictions_;
  for (Name* name : std::exchange(content.parked, {})) queue_for_memory(*name, content.bytes);
}

// Content that no name leads to any more goes as soon as nobody holds it.
void HostAdapters::drop_if_stale(Content& content) {
  if (!content.leading.empty() || content.held()) return;
  if (content.staged != nullptr) evict(content);
  const auto dropped = contents_.extract(content.digest);
  effects_.push_back(Dropped{dropped->digest});
}

// Whether a content of this size fits when everything that can be evicted has been.
bool HostAdapters::can_ever_fit(uint64_t bytes) const {
  return kept_bytes_ + bytes <= limits_.bytes && list(Place::kept).size() + 1 <= static_cast<size_t>(limits_.count);
}

std::string HostAdapters::why_it_cannot_fit(uint64_t bytes) const {
  std::string why = "the adapter takes " + std::to_string(bytes) + " bytes of the " + std::to_string(limits_.bytes) +
                    " that staged adapters may take";
  if (list(Place::kept).empty()) {
    why += " (--max-cpu-lora-bytes)";
  } else {
    why += ", of which " + std::to_string(list(Place::kept).size()) + " that are pinned take " +
           std::to_string(kept_bytes_);
  }
  return why;
}

// Whether one more content fits, once `freed` has gone.
bool HostAdapters::fits(uint64_t bytes, Room freed) const {
  return staged_bytes_ + reserved_.bytes + bytes <= limits_.bytes + freed.bytes &&
         staged_count_ + reserved_.count + 1 <= static_cast<size_t>(limits_.count) + freed.count;
}

// Evicts contents that nobody holds until one of `bytes` fits.
bool HostAdapters::make_room(uint64_t bytes) {
  while (!fits(bytes, {})) {
    if (idle_.empty()) return false;
    evict(idle_.victim());
  }
  return true;
}

void HostAdapters::queue_for_memory(Name& name, uint64_t bytes) {
  name.work = Work::queued;
  name.needed_bytes = bytes;
  name.ticket = ++tickets_;
  memory_queue_.emplace(name.ticket, &name);
}

// Reads what is known to need `bytes`, which are kept for it meanwhile.
void HostAdapters::read_into_place(Name& name, uint64_t bytes) {
  name.needed_bytes = bytes;
  name.has_place = true;
  reserved_.bytes += bytes;
  ++reserved_.count;
  start_read(name);
}

bool HostAdapters::leave_place(Name& name) {
  if (!std::exchange(name.has_place, false)) return false;
  reserved_.bytes -= name.needed_bytes;
  --reserved_.count;
  return true;
}

void HostAdapters::serve_memory_queue() {
  while (!memory_queue_.empty()) {
    const auto first = memory_queue_.begin();
    Name& name = *first->second;
    if (!can_ever_fit(name.needed_bytes)) {  // something was pinned meanwhile
      memory_queue_.erase(first);
      fail_waiters(name, why_it_cannot_fit(name.needed_bytes));
      continue;
    }
    if (!make_room(name.needed_bytes)) break;
    memory_queue_.erase(first);
    read_into_place(name, name.needed_bytes);
  }
  choose_draining();
}

// As many contents give way as the first in the queue needs and no more, least recently used first.
void HostAdapters::choose_draining() {
  const uint64_t needed = memory_queue_.empty() ? 0 : memory_queue_.begin()->second->needed_bytes;
  const ContentList& held = list(Place::held);
  const ContentList& draining = list(Place::draining);
  while (!memory_queue_.empty() && !held.empty() && !fits(needed, {draining_bytes_, draining.size()})) {
    put(held.front(), Place::draining);
  }
  while (!draining.empty()) {
    Content& last = draining.back();
    if (!memory_queue_.empty() && !fits(needed, {draining_bytes_ - last.bytes, draining.size() - 1})) break;
    undrain(last);
  }
}

void HostAdapters::undrain(Content& content) {
  put(content, Place::held);
  // Its files may have been replaced meanwhile.
  for (Name* name : std::exchange(content.parked, {})) start_check(*name);
}

}  // namespace lorikeet::actors
