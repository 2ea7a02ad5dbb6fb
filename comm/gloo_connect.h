// How the ranks of a Gloo communicator find each other.
#pragma once

#include <memory>

#include "comm/gloo_mesh.h"
#include "comm/group.h"
#include "comm/rendezvous.h"
#include "kernels/error.h"

namespace lorikeet::comm {

// options.size >= 2. Errors: a peer that did not come in time, an address that is not of this host, rubbish in the
// store.
Result<std::unique_ptr<GlooMesh>> connect_gloo_mesh(Rendezvous& store, const GlooOptions& options);

}  // namespace lorikeet::comm
