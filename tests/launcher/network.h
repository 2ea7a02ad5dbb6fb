// Hosts for tests: network namespaces that are connected by veth pairs through a bridge in a namespace of its own.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kernels/base/descriptor.h"

namespace lorikeet::tests {

// Made with ip(8) and removed at the end. Host n has the address 10.77.0.(n + 1) on its interface "lan".
class Network {
 public:
  // Why a network cannot be made here; empty: it can.
  static std::string why_not();

  explicit Network(int hosts);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  static std::string address(int host) { return "10.77.0." + std::to_string(host + 1); }

  // Pulls the cable of a host, and puts it back.
  void disconnect(int host) const;
  void connect(int host) const;

  // A host's link in both directions: so much a second (as tc(8) writes it, such as 8mbit); empty: as fast as it goes.
  void slow(int host, const std::string& rate) const;

  // While it lives, what this thread starts does not see what is in a directory.
  class Hidden {
   public:
    explicit Hidden(const std::filesystem::path& directory);
    ~Hidden();
    Hidden(const Hidden&) = delete;
    Hidden& operator=(const Hidden&) = delete;

   private:
    const std::filesystem::path work_;
    Descriptor before_;
  };

  // While it lives, what this thread starts runs on the host.
  class On {
   public:
    On(const Network& network, int host);
    ~On();
    On(const On&) = delete;
    On& operator=(const On&) = delete;

   private:
    Descriptor before_;
  };

 private:
  std::string name(int host) const { return prefix_ + std::to_string(host); }

  const std::string prefix_;
  const int hosts_;
};

}  // namespace lorikeet::tests
