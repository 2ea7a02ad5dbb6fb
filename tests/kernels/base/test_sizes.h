// Sizes of the kernels' tests. Under compute-sanitizer (sanitize.py sets the variable) a launch takes a hundred to ten
// thousand times as long, and what it finds does not depend on how much is computed: there a test takes the few sizes by
// which every kernel is still entered, every kind of division is made and every ring comes around.
#pragma once

#include <cstdlib>
#include <initializer_list>
#include <vector>

namespace lorikeet::kernels {

inline bool takes_few_sizes() {
  static const bool few = std::getenv("LORIKEET_SANITIZER_SIZES") != nullptr;
  return few;
}

template <class T>
T usual_or_few(T usual, T few) {
  return takes_few_sizes() ? few : usual;
}

template <class T>
std::vector<T> sizes(std::initializer_list<T> usual, std::initializer_list<T> few) {
  return takes_few_sizes() ? few : usual;
}

}  // namespace lorikeet::kernels
