#include "actors/head/adapter_changes.h"

#include <fmt/format.h>

#include <algorithm>

#include "actors/head/adapter_key.h"

namespace lorikeet::actors {
namespace {

// Ids under which changes hold adapters; requests' ids are counted from 1.
constexpr uint64_t kFirstId = uint64_t{1} << 63;

constexpr const char* kNotAllowed =
    "adapters are not changed at run time here; --enable-runtime-lora-updating and --lora-dir allow it";

}  // namespace

AdapterChanges::AdapterChanges(Settings settings, AdapterNames names, HostAdapters& host, AdapterSlots& slots)
    : settings_(std::move(settings)), names_(std::move(names)), host_(host), slots_(slots) {
  for (const auto& [name, directory] : names_.list()) first_.insert(name);
}

HostAdapters::Id AdapterChanges::id_of(uint64_t number) {
  return HostAdapters::Id(kFirstId | number);
}

AdapterChanges::Changes::iterator AdapterChanges::find(HostAdapters::Id id) {
  return (id.value() & kFirstId) != 0 ? changes_.find(id.value() & ~kFirstId) : changes_.end();
}

// ---- changes of an earlier head

void AdapterChanges::restore(const std::vector<NameChange>& changes, TimePoint now) {
  for (const NameChange& change : changes) {
    if (change.removed) {
      host_.leave(change.name);
      names_.erase(change.name);
      removed_.insert(change.name);
    }
    if (change.directory) {
      const std::string key = loaded_key(change.name, 0);
      host_.restore(key, *change.directory);
      names_.set(change.name, *change.directory);
      loaded_[change.name] = *change.directory;
      restored_.insert(change.name);
      effects_.push_back(Locate{key, *change.directory});
    }
    if (change.pinned) claim(++numbers_, Action::pin, change.name, false, now);
  }
}

void AdapterChanges::found(const std::string& name, const tl::expected<std::string, AdapterRefusal>& directory) {
  if (restored_.erase(name) == 0) return;                               // it leads elsewhere by now
  if (directory || directory.error().code == "adapter_failed") return;  // the disk may answer later
  host_.leave(name);
  names_.erase(name);
  pinned_.erase(name);
  loaded_.erase(name);
  if (first_.contains(name)) removed_.insert(name);
  effects_.push_back(Forgotten{name, directory.error().message});
  remember(name);
}

void AdapterChanges::remember(const std::string& name) {
  NameChange change;
  change.name = name;
  const auto loaded = loaded_.find(name);
  if (loaded != loaded_.end()) change.directory = loaded->second;
  change.removed = removed_.contains(name);
  change.pinned = pinned_.contains(name);
  effects_.push_back(Remember{std::move(change)});
}

// ---- beginnings

uint64_t AdapterChanges::begin(comm::AdapterRequest request, TimePoint now) {
  const uint64_t number = ++numbers_;
  const std::string name = request.name.value_or("");
  if (!settings_.allowed && request.action != "warm") {
    end(number, kNotAllowed, "forbidden");
  } else if (changes_.size() >= kMostAtOnce) {
    end(number, fmt::format("{} changes of adapters are under way, at most {} may be", changes_.size(), kMostAtOnce),
        "queue_full");
  } else if (request.action == "load") {
    load(number, std::move(request), now);
  } else if (request.action == "unload") {
    unload(number, name);
  } else if (request.action == "unpin") {
    unpin(number, name);
  } else {
    claim(number, request.action == "pin" ? Action::pin : Action::warm, name, true, now);
  }
  return number;
}

void AdapterChanges::load(uint64_t number, comm::AdapterRequest request, TimePoint now) {
  const std::string& name = *request.name;
  if (std::find(settings_.base_models.begin(), settings_.base_models.end(), name) != settings_.base_models.end()) {
    return end(number, fmt::format("'{}' is the name of the base model", name), "invalid_request");
  }
  const bool taken = host_.knows(name);
  if (taken && !request.load_inplace) {  // as vLLM says it
    return end(
        number,
        fmt::format("The lora adapter '{}' has already been loaded. If you want to load the adapter in place, set "
                    "'load_inplace' to True.",
                    name),
        "invalid_request");
  }
  if (!taken && names_.size() >= kMostNames) {
    return end(number, fmt::format("{} adapters are served, as many as may be", kMostNames), "queue_full");
  }
  if (!loading_.emplace(name, number).second) {
    return end(number, fmt::format("'{}' is being loaded already", name), "conflict");
  }
  Change& change = changes_[number];
  change.action = Action::load;
  change.name = name;
  change.key = loaded_key(name, number);
  change.path = *request.path;
  change.began = now;
  effects_.push_back(Locate{change.key, change.path});
}

void AdapterChanges::unload(uint64_t number, const std::string& name) {
  if (!host_.leave(name)) return end_unknown(number, name);
  names_.erase(name);
  pinned_.erase(name);
  restored_.erase(name);
  loaded_.erase(name);
  if (first_.contains(name)) removed_.insert(name);
  remember(name);
  end(number, fmt::format("Success: LoRA adapter '{}' removed successfully.", name));
}

void AdapterChanges::unpin(uint64_t number, const std::string& name) {
  if (auto ok = host_.keep(name, false); !ok) return end_unknown(number, name);
  pinned_.erase(name);
  remember(name);
  end(number, fmt::format("'{}' is not pinned", name));
}

void AdapterChanges::claim(uint64_t number, Action action, const std::string& name, bool asked, TimePoint now) {
  Change& change = changes_[number];
  change.action = action;
  change.name = name;
  change.asked = asked;
  change.began = now;
  host_.resolve(id_of(number), name);
}

void AdapterChanges::group_formed(TimePoint now) {
  for (const std::string& name : pinned_) claim(++numbers_, Action::warm, name, false, now);
}

// ---- answers of disk and ranks

void AdapterChanges::located(const std::string& key, const tl::expected<std::string, AdapterRefusal>& directory) {
  if (key == loaded_key(name_in_key(key), 0)) return found(name_in_key(key), directory);
  const auto loading = loading_.find(name_in_key(key));
  if (loading == loading_.end()) return;
  const auto it = changes_.find(loading->second);
  if (it == changes_.end() || it->second.key != key) return;  // that one took too long
  if (!directory) return end(it, directory.error().message, directory.error().code);
  it->second.directory = *directory;
  host_.prepare(id_of(it->first), key, *directory);
}

bool AdapterChanges::resolved(const HostAdapters::Resolved& answer) {
  const auto it = find(answer.id);
  if (it == changes_.end()) {
    const bool ours = (answer.id.value() & kFirstId) != 0;
    if (ours) host_.unclaim(answer.id, AdapterOutcome::none);
    return ours;
  }
  if (answer.unknown) {
    end(it, fmt::format("The lora adapter '{}' cannot be found.", it->second.name), "unknown_adapter");
  } else if (!answer.error.empty()) {
    end(it, answer.error, "adapter_failed");
  } else {
    it->second.digest = answer.digest;
    claimed(it);
  }
  return true;
}

void AdapterChanges::claimed(Changes::iterator it) {
  Change& change = it->second;
  if (change.action != Action::warm && !slots_.has_slot_for(change.digest, host_.staged(change.digest).get())) {
    return finish(it);
  }
  change.acquiring = true;
  slots_.acquire(id_of(it->first), change.digest, host_.staged(change.digest));
}

bool AdapterChanges::acquired(const AdapterSlots::Acquired& answer) {
  const auto it = find(answer.id);
  if (it == changes_.end()) return (answer.id.value() & kFirstId) != 0;
  if (answer.error.empty()) {
    finish(it);
  } else {
    end(it, answer.error, answer.ranks_failed ? "rank_lost" : "adapter_failed");
  }
  return true;
}

// ---- ends

void AdapterChanges::finish(Changes::iterator it) {
  const Change& change = it->second;
  switch (change.action) {
    case Action::load:
      host_.enter(change.key);
      names_.set(change.name, change.directory);
      loaded_[change.name] = change.directory;
      restored_.erase(change.name);
      remember(change.name);
      return end(it, fmt::format("Success: LoRA adapter '{}' added successfully.", change.name));
    case Action::warm:
      return end(it, fmt::format("'{}' is on all ranks", change.name));
    case Action::pin:
      if (!pinned_.contains(change.name) && pinned_.size() + 1 >= static_cast<size_t>(slots_.size())) {
        return end(it,
                   fmt::format("{} adapters are pinned, and of {} slots (--max-loras) one is left to the others",
                               pinned_.size(), slots_.size()),
                   "conflict");
      }
      if (!slots_.may_keep(change.digest, host_.staged(change.digest).get())) {
        return end(it,
                   fmt::format("the pinned adapters and this one would take more than half of the {} bytes that each "
                               "rank has for adapters",
                               slots_.budget_bytes()),
                   "conflict");
      }
      if (auto ok = host_.keep(change.name, true); !ok) return end(it, ok.error().message, "conflict");
      pinned_.insert(change.name);
      remember(change.name);
      return end(it, fmt::format("'{}' is pinned", change.name));
  }
}

void AdapterChanges::end_unknown(uint64_t number, const std::string& name) {
  end(number, fmt::format("The lora adapter '{}' cannot be found.", name), "unknown_adapter");
}

void AdapterChanges::end(uint64_t number, std::string message, std::string code) {
  effects_.push_back(Ended{number, std::move(message), std::move(code)});
}

// Gives back its claim and lease; a load whose name has entered needs them no more.
void AdapterChanges::end(Changes::iterator it, std::string message, std::string code) {
  const auto [number, change] = *it;
  changes_.erase(it);
  if (change.acquiring) slots_.release(id_of(number), change.digest);
  host_.unclaim(id_of(number), AdapterOutcome::none);
  if (change.action == Action::load) {
    loading_.erase(change.name);
    host_.abandon(change.key);  // where it has not entered
  }
  if (change.asked) end(number, std::move(message), std::move(code));
}

void AdapterChanges::tick(TimePoint now) {
  for (auto it = changes_.begin(); it != changes_.end();) {
    const auto next = std::next(it);
    if (now - it->second.began > settings_.patience) {
      end(it, fmt::format("it was not done within {} s", settings_.patience.count() / 1000), "timed_out");
    }
    it = next;
  }
}

}  // namespace lorikeet::actors
