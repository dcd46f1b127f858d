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
  /// What belongs to a commit as a whole, on the writer's thread.
  struct Hooks {
    std::function<void()> begun;      ///< before the first change, each time they are run
    std::function<void()> saved;      ///< before a change that may be undone for itself
    std::function<void()> undone;     ///< after that
    std::function<void()> ending;     ///< after the last; may change more, and throw
    std::function<void()> committed;  ///< after the sync, before any `done`; must not throw
  };
  /// `database` is used by the writer's thread only, from now on.
  explicit GroupWriter(db::Database& database, Hooks hooks = {});
  /// Commits what was handed in.
  ~GroupWriter();
  GroupWriter(const GroupWriter&) = delete;
  GroupWriter& operator=(const GroupWriter&) = delete;

  /// Runs `change` on the writer's thread, and calls `done` there after the sync, once, with
  /// nothing or with what was thrown; neither may call the writer's run(), and `done` must not
  /// throw. What `change` throws undoes it alone. It may be run twice, when what it did first has
  /// been undone: so it leaves nothing that its second run trips over. A full disk is the
  /// DatabaseError of every change of that commit and leaves the writer usable, as a database does
  /// that another program has locked; any other failure of the database ends it: all later calls
  /// get a StorageError. The callers bound how many wait.
  void run_later(std::function<void()> change, std::function<void(std::exception_ptr)> done);
  /// The same, waiting: throws what `change` throws.
  void run(std::function<void()> change);
  /// True after a failure of the database.
  bool failed() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::registry
