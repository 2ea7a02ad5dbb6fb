// How the ranks of a Gloo communicator find each other.
#pragma once

#include <memory>

#include "comm/collective/gloo_mesh.h"
#include "comm/collective/group.h"
#include "comm/collective/rendezvous.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// options.size >= 2. Errors: a peer that did not come in time, an address that is not of this host, rubbish in the
// store.
Result<std::unique_ptr<GlooMesh>> connect_gloo_mesh(Rendezvous& store, const GlooOptions& options);

}  // namespace lorikeet::comm
