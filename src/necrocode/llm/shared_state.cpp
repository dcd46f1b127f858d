#include "necrocode/llm/shared_state.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"

namespace necrocode::llm {
namespace {

// Times are microseconds, days are days, both since 1970 in UTC; money is millionths of a dollar.
constexpr std::string_view kSchema = R"(
CREATE TABLE spent(
  scope TEXT PRIMARY KEY,
  day INTEGER NOT NULL,
  micros INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE reservations(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run TEXT NOT NULL,
  owner TEXT NOT NULL,
  day INTEGER NOT NULL,
  micros INTEGER NOT NULL);
CREATE TABLE pace(
  key TEXT PRIMARY KEY,
  not_before INTEGER NOT NULL DEFAULT 0,
  requests_at INTEGER NOT NULL DEFAULT 0,
  tokens_at INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE breakers(
  origin TEXT PRIMARY KEY,
  failures INTEGER NOT NULL,
  first_failure INTEGER NOT NULL,
  open_until INTEGER NOT NULL DEFAULT 0,
  open_for INTEGER NOT NULL DEFAULT 0,
  probe_until INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
)";

// Making a database is no transaction: two processes must not do it at once.
FileDescriptor lock_while_opening(const std::filesystem::path& file) {
  if (file.empty()) return {};
  const std::string name = file.string() + ".lock";
  FileDescriptor lock(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) throw_errno("cannot open", name);
  while (::flock(lock.get(), LOCK_EX) != 0) {
    if (errno != EINTR) throw_errno("cannot lock", name);
  }
  return lock;
}

}  // namespace

SharedState::SharedState(const std::filesystem::path& file)
    : opening_(lock_while_opening(file)), database(file.empty() ? ":memory:" : file) {
  database.execute("PRAGMA synchronous=NORMAL");  // no sync a call
  database.migrate({kSchema});
  opening_.reset();
}

}  // namespace necrocode::llm
