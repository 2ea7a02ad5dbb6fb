// A file descriptor with one owner.
#pragma once

#include <unistd.h>

#include <utility>

namespace lorikeet {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int owned) : value_(owned) {}  // takes it over; -1: none
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : value_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }

  explicit operator bool() const { return value_ >= 0; }
  int get() const { return value_; }
  int release() { return std::exchange(value_, -1); }  // to another owner
  void reset(int owned = -1) {
    if (value_ >= 0) close(value_);
    value_ = owned;
  }

 private:
  int value_ = -1;
};

}  // namespace lorikeet
