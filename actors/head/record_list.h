// Intrusive lists: a record holds its own links, so every call but for_each() costs the same however many there are.
#pragma once

#include <cstddef>
#include <utility>

namespace lorikeet::actors {

// A record's links in the list that it is on.
template <class Record>
struct ListLinks {
  Record* before = nullptr;
  Record* behind = nullptr;
};

// Records in an order, strung by their links, each on one list at a time. Only for_each() walks.
template <class Record, ListLinks<Record> Record::*kLinks>
class RecordList {
 public:
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  Record& front() const { return *front_; }
  Record& back() const { return *back_; }

  template <class Visit>
  void for_each(Visit&& visit) const {
    for (Record* record = front_; record != nullptr; record = (record->*kLinks).behind) visit(*record);
  }

  void push_back(Record& record) {
    (record.*kLinks) = {back_, nullptr};
    (back_ != nullptr ? (back_->*kLinks).behind : front_) = &record;
    back_ = &record;
    ++size_;
  }

  void push_front(Record& record) {
    (record.*kLinks) = {nullptr, front_};
    (front_ != nullptr ? (front_->*kLinks).before : back_) = &record;
    front_ = &record;
    ++size_;
  }

  void erase(Record& record) {
    const auto [before, behind] = std::exchange(record.*kLinks, {});
    (before != nullptr ? (before->*kLinks).behind : front_) = behind;
    (behind != nullptr ? (behind->*kLinks).before : back_) = before;
    --size_;
  }

 private:
  Record* front_ = nullptr;
  Record* back_ = nullptr;
  size_t size_ = 0;
};

}  // namespace lorikeet::actors
