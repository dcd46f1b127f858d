// What workers do in a pool's store.git: open it, look at a branch, find what a ref means. They get
// values, and give values back; of pools, slots and waiting nothing is known here.
#pragma once

#include <string>

#include "necrocode/git/repository.hpp"

namespace necrocode::pool {

/// The store as it was last fetched. The errors of all these are GitError, TimeoutError and, for
/// what the remote does not have, TaskContextValidationError.
struct StoreView {
  std::string base_branch;
  std::string base_commit;
};

/// What a slot is to stand at.
struct Target {
  std::string branch;
  std::string commit;
};

StoreView look_at(const git::Repository& store, const std::string& branch,
                  const CallContext& context);

/// After a start: as it stands on disk, without the network when that is enough. `branch` empty:
/// the remote's HEAD.
StoreView open_store(const git::Git& git, const git::Repository& store, const std::string& url,
                     std::string branch, bool& fetched, const CallContext& context);

/// Fetches all branches, then looks.
StoreView fetch_store(const git::Repository& store, const std::string& url,
                      const std::string& branch, const CallContext& context);

/// Fetches, and finds a branch, tag or full commit id.
Target resolve_ref(const git::Repository& store, const std::string& url, const std::string& ref,
                   const std::string& base_branch, const CallContext& context);

}  // namespace necrocode::pool
