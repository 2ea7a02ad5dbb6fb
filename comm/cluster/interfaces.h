// The network interfaces of this host.
#pragma once

#include <string>

#include "kernels/base/error.h"

namespace lorikeet::comm {

// The numeric address of an interface, IPv4 where it has one. Errors: there is none, with those that there are.
Result<std::string> address_of_interface(const std::string& name);

// The interface that has a numeric address; empty: none.
std::string interface_with(const std::string& address);

}  // namespace lorikeet::comm
