#include "necrocode/outbox/outbox_file.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::outbox {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSchema1 = R"sql(
CREATE TABLE calls (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  service TEXT NOT NULL,
  base_url TEXT NOT NULL,
  operation TEXT NOT NULL,
  target TEXT NOT NULL,
  method TEXT NOT NULL,
  path TEXT NOT NULL,
  body TEXT NOT NULL,
  idempotency_key TEXT NOT NULL UNIQUE,
  kept_ms INTEGER NOT NULL);
)sql";
constexpr const char* kColumns =
    "id, service, base_url, operation, target, method, path, body, idempotency_key, kept_ms";
constexpr const char* kSuffix = ".outbox";

KeptCall read_call(const db::Statement& row) {
  KeptCall call;
  call.id = row.integer(0);
  call.service = row.text(1);
  call.base_url = row.text(2);
  call.operation = row.text(3);
  call.target = row.text(4);
  call.method = row.text(5);
  call.path = row.text(6);
  call.body = row.text(7);
  call.idempotency_key = row.text(8);
  call.kept_at = from_unix_ms(row.integer(9));
  return call;
}

fs::path with_suffix(const fs::path& path, const char* suffix) {
  return path.string() + suffix;
}

}  // namespace

OutboxFile::OutboxFile(fs::path folder) : folder_(std::move(folder)) {}

OutboxFile::~OutboxFile() {
  if (!own_) return;
  try {
    if (calls_in(*own_->database).empty()) remove_files(std::move(*own_));
  } catch (const std::exception& error) {
    log::warn("an outbox is left behind", {{"error", error.what()}});
  }
}

/// Locked by this process; nothing when another one has it, or when it is gone. The lock stands
/// beside the database, since SQLite's own locks end with any descriptor of the file.
std::optional<OutboxFile::Opened> OutboxFile::open(const fs::path& path, bool make) {
  const std::string name = with_suffix(path, ".lock");
  FileDescriptor lock(::open(name.c_str(), O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), 0600));
  if (!lock) {
    if (!make && errno == ENOENT) return std::nullopt;
    throw_errno("cannot open", name);
  }
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return std::nullopt;
  // Somebody may have taken it over, and removed it, between the two calls above.
  if (!make && !fs::exists(path)) return std::nullopt;
  Opened opened{std::move(lock), path, std::make_unique<db::Database>(path)};
  opened.database->migrate({kSchema1});
  return opened;
}

/// The lock goes last: who finds it without its database finds nothing to take over.
void OutboxFile::remove_files(Opened opened) {
  opened.database.reset();
  for (const char* suffix : {"", "-wal", "-shm", ".lock"}) {
    std::error_code error;
    fs::remove(with_suffix(opened.path, suffix), error);
  }
}

db::Database& OutboxFile::own() {
  if (!own_) {
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error) throw StorageError("cannot make " + folder_.string() + ": " + error.message());
    own_ = open(folder_ / (uuid7() + kSuffix), true);
    fsync_directory(folder_);
  }
  return *own_->database;
}

std::int64_t OutboxFile::add(const KeptCall& call) {
  db::Database& database = own();
  database
      .prepare(
          "INSERT INTO calls (service, base_url, operation, target, method, path, body, "
          "idempotency_key, kept_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
          "ON CONFLICT (idempotency_key) DO NOTHING")
      .bind(call.service)
      .bind(call.base_url)
      .bind(call.operation)
      .bind(call.target)
      .bind(call.method)
      .bind(call.path)
      .bind(call.body)
      .bind(call.idempotency_key)
      .bind(to_unix_ms(call.kept_at))
      .run();
  db::Statement& query = database.prepare("SELECT id FROM calls WHERE idempotency_key = ?");
  query.bind(call.idempotency_key).step();
  const std::int64_t id = query.integer(0);
  query.reset();
  return id;
}

void OutboxFile::remove(std::int64_t id) {
  own().prepare("DELETE FROM calls WHERE id = ?").bind(id).run();
}

std::optional<KeptCall> OutboxFile::load(std::int64_t id) {
  db::Statement& query =
      own().prepare(std::string("SELECT ") + kColumns + " FROM calls WHERE id = ?");
  if (!query.bind(id).step()) return std::nullopt;
  KeptCall call = read_call(query);
  query.reset();
  return call;
}

std::vector<KeptCall> OutboxFile::calls_in(db::Database& database) {
  db::Statement& query =
      database.prepare(std::string("SELECT ") + kColumns + " FROM calls ORDER BY id");
  std::vector<KeptCall> calls;
  while (query.step()) calls.push_back(read_call(query));
  return calls;
}

std::vector<KeptCall> OutboxFile::adopt() {
  std::vector<KeptCall> adopted;
  std::error_code none;
  std::vector<fs::path> files;  // by name, which is by age
  for (const auto& entry : fs::directory_iterator(folder_, none)) {
    if (entry.path().extension() == kSuffix) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    if (own_ && file == own_->path) continue;
    try {
      adopt_file(file, adopted);
    } catch (const RunnerError& error) {
      log::error("kept calls cannot be read", {{"file", file.string()}, {"error", error.what()}});
    }
  }
  return adopted;
}

/// Copied whole before the other file goes: a crash in between leaves both, and the keys make them
/// one again.
void OutboxFile::adopt_file(const fs::path& path, std::vector<KeptCall>& adopted) {
  auto opened = open(path, false);
  if (!opened) return;
  std::vector<KeptCall> calls = calls_in(*opened->database);
  if (!calls.empty()) {
    db::Transaction transaction(own());
    for (KeptCall& call : calls) call.id = add(call);
    transaction.commit();
  }
  remove_files(std::move(*opened));
  adopted.insert(adopted.end(), calls.begin(), calls.end());
}

}  // namespace necrocode::outbox
