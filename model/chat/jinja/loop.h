// What `loop` is inside of a for loop. As Jinja's, it asks a loop's `if` of an item only when that item is looked at.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "model/chat/jinja/value.h"

namespace lorikeet::model::jinja {

struct LoopContext {
 public:
  // passes: the loop's `if`; may be null.
  LoopContext(std::shared_ptr<List> list, std::function<bool(const Value&)> passes)
      : list_(std::move(list)), passes_(std::move(passes)) {}

  // Goes on to the next item; false at the end.
  bool advance() {
    if (!has_next()) return false;
    previous_ = std::exchange(current_, list_->items[next_++]);
    checked_ = false;
    ++taken_;
    return true;
  }

  bool has_next() {
    while (passes_ && !checked_ && next_ < list_->items.size()) {
      checked_ = passes_(list_->items[next_]);
      if (!checked_) ++next_;
    }
    return next_ < list_->items.size();
  }

  size_t length() {
    if (passes_) {
      std::vector<Value> rest;
      for (; has_next(); ++next_, checked_ = false) rest.push_back(list_->items[next_]);
      list_ = std::make_shared<List>(List{List::Kind::list, std::move(rest)});
      next_ = 0;
      passes_ = nullptr;
    }
    return taken_ + list_->items.size() - next_;
  }

  const Value& current() const { return current_; }
  size_t index0() const { return taken_ - 1; }
  Value previous() const { return taken_ > 1 ? previous_ : Value(Undefined{"there is no previous item"}); }
  Value following() { return has_next() ? list_->items[next_] : Value(Undefined{"there is no next item"}); }

  bool changed(const Value& value) {
    if (last_ && equal(*last_, value)) return false;
    last_ = value;
    return true;
  }

 private:
  std::shared_ptr<List> list_;
  std::function<bool(const Value&)> passes_;
  size_t next_ = 0, taken_ = 0;
  bool checked_ = false;  // the next item has passed
  Value previous_, current_;
  std::optional<Value> last_;  // of changed()
};

}  // namespace lorikeet::model::jinja
