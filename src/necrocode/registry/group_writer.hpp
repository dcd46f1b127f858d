// GroupWriter: one thread that owns a database connection for writing and puts all changes that
// arrive together into one durable commit. Knows nothing of tasks. No change is acknowledged before
// the sync, and after a failed sync nothing is written any more (fail-stop).
#pragma once

#include <functional>
#include <memory>

#include "necrocode/db/sqlite.hpp"

namespace necrocode::registry {

class GroupWriter {
 public:
  /// `database` is used by the writer's thread only, from now on.
  explicit GroupWriter(db::Database& database);
  /// Commits what was handed in.
  ~GroupWriter();
  GroupWriter(const GroupWriter&) = delete;
  GroupWriter& operator=(const GroupWriter&) = delete;

  /// Runs `change` on the writer's thread within a savepoint, then `committed` after the sync (it
  /// must not throw), then returns. What `change` throws undoes it alone and is thrown here. A full
  /// disk throws the DatabaseError for every change of that commit and leaves the writer usable;
  /// any other failure of the database ends it: all later calls throw StorageError.
  void run(std::function<void()> change, std::function<void()> committed = {});
  /// True after a failure of the database.
  bool failed() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::registry
