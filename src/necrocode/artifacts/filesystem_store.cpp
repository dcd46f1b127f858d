#include "necrocode/artifacts/filesystem_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "necrocode/artifacts/filesystem_state.hpp"
#include "necrocode/base/check.hpp"
#include "necrocode/base/digest.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::artifacts {
namespace {

namespace fs = std::filesystem;

// The number `seq` orders the artifacts of a page; it is never reused (AUTOINCREMENT), so a cursor
// stays right whatever comes or goes. Tags stand twice: as text in their order, and as rows to
// search.
constexpr std::string_view kSchema = R"sql(
CREATE TABLE artifacts(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  type TEXT NOT NULL,
  name TEXT NOT NULL,
  spec TEXT NOT NULL,
  task TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  metadata TEXT NOT NULL,
  tags TEXT NOT NULL) STRICT;
CREATE INDEX artifacts_by_object ON artifacts(sha256);
CREATE INDEX artifacts_by_place ON artifacts(spec, task, type, name);
CREATE INDEX artifacts_by_task ON artifacts(task, seq);
CREATE INDEX artifacts_by_type ON artifacts(type, seq);
CREATE INDEX artifacts_by_time ON artifacts(created_ms);
CREATE TABLE artifact_tags(
  tag TEXT NOT NULL,
  seq INTEGER NOT NULL REFERENCES artifacts(seq) ON DELETE CASCADE,
  PRIMARY KEY(tag, seq)) STRICT, WITHOUT ROWID;
CREATE INDEX artifact_tags_by_artifact ON artifact_tags(seq);
CREATE TABLE idempotency_keys(
  key TEXT PRIMARY KEY,
  fingerprint TEXT NOT NULL,
  artifact_id TEXT NOT NULL,
  created_ms INTEGER NOT NULL) STRICT;
CREATE INDEX idempotency_keys_by_time ON idempotency_keys(created_ms);
)sql";

// `lease_ms` is of an open log alone, whose row has neither size nor digest: they are written when
// it is sealed, and it has no lease any more.
constexpr std::string_view kLogSchema = R"sql(
ALTER TABLE artifacts ADD COLUMN lease_ms INTEGER;
CREATE INDEX artifacts_open ON artifacts(seq) WHERE lease_ms IS NOT NULL;
)sql";

constexpr std::string_view kColumns =
    "id, type, name, spec, task, size_bytes, sha256, created_ms, metadata, tags, seq, lease_ms";
constexpr int kSeqColumn = 10;
constexpr int kLeaseColumn = 11;
constexpr std::size_t kDigestCharacters = 64;

std::vector<std::string> tags_from_text(const std::string& text) {
  const Json stored = Json::parse(text, "stored tags");
  std::vector<std::string> tags;
  for (const Json& tag : stored.items()) tags.push_back(tag.string_or(""));
  return tags;
}

Artifact artifact_from(const db::Statement& row) {
  Artifact artifact;
  artifact.id.value = row.text(0);
  artifact.type = row.text(1);
  artifact.name = row.text(2);
  artifact.spec = row.text(3);
  artifact.task = row.text(4);
  artifact.size_bytes = static_cast<std::uint64_t>(row.integer(5));
  artifact.sha256 = row.text(6);
  artifact.created_at = from_unix_ms(row.integer(7));
  artifact.metadata = Json::parse(row.text(8), "stored metadata");
  artifact.tags = tags_from_text(row.text(9));
  artifact.sealed = row.is_null(kLeaseColumn);
  return artifact;
}

FileDescriptor lock_directory(const fs::path& directory) {
  const fs::path path = directory / "lock";
  FileDescriptor lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) throw_errno("cannot open", path.string());
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      throw ResourceConflictError("another process serves the folder " + directory.string());
    }
    throw_errno("cannot lock", path.string());
  }
  return lock;
}

void unlink_quietly(const fs::path& path) {
  ::unlink(path.c_str());
}

// Bound in this order.
constexpr std::string_view kSamePlace =
    " FROM artifacts WHERE spec=? AND task=? AND type=? AND name=?";
db::Statement& bind_place(db::Statement& statement, const ArtifactDraft& draft) {
  return statement.bind(draft.spec).bind(draft.task).bind(draft.type).bind(draft.name);
}

}  // namespace

// All that makes an upload what it is: the same key with another of these is a mistake.
std::string fingerprint_of(const ArtifactDraft& draft, const std::string& content) {
  return sha256_hex(Json(Json::Array{draft.type, draft.name, draft.spec, draft.task, draft.metadata,
                                     draft.tags, content})
                        .dump());
}

void make_directory(const fs::path& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    throw_errno("cannot make", path.string());
}

FilesystemArtifactStore::State::State(const fs::path& root, const Clock& a_clock)
    : clock(a_clock),
      directory(root),
      lock(lock_directory(root)),
      index(root / "index.sqlite"),
      reader(nullptr) {}

bool FilesystemArtifactStore::State::is_referenced(const std::string& sha256) {
  db::Statement& query = index.prepare("SELECT 1 FROM artifacts WHERE sha256=? LIMIT 1");
  query.bind(sha256);
  const bool found = query.step();
  query.reset();
  return found;
}

void FilesystemArtifactStore::State::sweep() {
  for (const fs::directory_entry& entry : fs::directory_iterator(temporary())) {
    const std::string name = entry.path().filename().string();
    const std::string sha256 = name.substr(0, std::min(name.find('.'), name.size()));
    if (sha256.size() == kDigestCharacters && !is_referenced(sha256))
      unlink_quietly(object(sha256));
    unlink_quietly(entry.path());
  }
}

void FilesystemArtifactStore::UndecidedObjects::add(const std::string& sha256) {
  const fs::path marker = state_.temporary() / (sha256 + "." + random_hex(8));
  FileDescriptor file(::open(marker.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) throw_errno("cannot create", marker.string());
  markers_.emplace_back(sha256, marker);
}

FilesystemArtifactStore::UndecidedObjects::~UndecidedObjects() {
  for (const auto& [sha256, marker] : markers_) {
    try {
      if (!state_.is_referenced(sha256)) unlink_quietly(state_.object(sha256));
      unlink_quietly(marker);
    } catch (const std::exception& error) {
      log::error("artifact object left for the next start to decide",
                 {{"object", sha256}, {"reason", error.what()}});
    }
  }
}

// In milliseconds as it is stored, so that the first answer and every later one say the same time.
Artifact FilesystemArtifactStore::State::named(const ArtifactDraft& draft) const {
  Artifact artifact;
  artifact.id.value = uuid7();
  artifact.type = draft.type;
  artifact.name = draft.name.empty() ? artifact.id.value : draft.name;
  artifact.spec = draft.spec;
  artifact.task = draft.task;
  artifact.created_at = from_unix_ms(to_unix_ms(clock.system_now()));
  artifact.metadata = draft.metadata;
  artifact.tags = draft.tags;
  return artifact;
}

std::optional<Artifact> FilesystemArtifactStore::State::first_answer(
    const ArtifactDraft& draft, const std::string& fingerprint) {
  if (draft.idempotency_key.empty()) return std::nullopt;
  db::Statement& query = index.prepare(
      "SELECT fingerprint, artifact_id, created_ms FROM idempotency_keys WHERE key=? AND "
      "created_ms>?");
  query.bind(draft.idempotency_key)
      .bind(to_unix_ms(clock.system_now() - limits::kIdempotencyKeyTime));
  if (!query.step()) return std::nullopt;
  const std::string known = query.text(0);
  Artifact first = named(draft);
  first.id.value = query.text(1);
  if (draft.name.empty()) first.name = first.id.value;
  first.created_at = from_unix_ms(query.integer(2));
  query.reset();
  if (known != fingerprint) {
    throw IdempotencyMismatch("the Idempotency-Key was used for another upload");
  }
  return first;
}

std::optional<FilesystemArtifactStore::State::Replaced> FilesystemArtifactStore::State::replaced_by(
    const ArtifactDraft& draft) {
  if (draft.name.empty() || draft.task.empty()) return std::nullopt;
  db::Statement& query = index.prepare("SELECT id, sha256" + std::string(kSamePlace));
  if (!bind_place(query, draft).step()) return std::nullopt;
  Replaced replaced{query.text(0), query.text(1)};
  query.reset();
  return replaced;
}

void FilesystemArtifactStore::State::insert_tags(std::int64_t seq,
                                                 const std::vector<std::string>& tags) {
  for (const std::string& tag : tags) {
    index.prepare("INSERT OR IGNORE INTO artifact_tags(tag, seq) VALUES(?, ?)")
        .bind(tag)
        .bind(seq)
        .run();
  }
}

void FilesystemArtifactStore::State::insert(const Artifact& artifact, const ArtifactDraft& draft,
                                            const std::string& fingerprint,
                                            std::optional<std::int64_t> lease_ms) {
  db::Transaction transaction(index);
  if (!draft.name.empty() && !draft.task.empty()) {
    bind_place(index.prepare("DELETE" + std::string(kSamePlace)), draft).run();
  }
  index
      .prepare(
          "INSERT INTO artifacts(id, type, name, spec, task, size_bytes, sha256, created_ms,"
          " metadata, tags, lease_ms) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .bind(artifact.id.value)
      .bind(artifact.type)
      .bind(artifact.name)
      .bind(artifact.spec)
      .bind(artifact.task)
      .bind(static_cast<std::int64_t>(artifact.size_bytes))
      .bind(artifact.sha256)
      .bind(to_unix_ms(artifact.created_at))
      .bind(artifact.metadata.dump())
      .bind(Json(artifact.tags).dump())
      .bind(lease_ms)
      .run();
  insert_tags(index.last_insert_id(), artifact.tags);
  remember_key(draft, fingerprint, artifact);
  transaction.commit();
}

void FilesystemArtifactStore::State::remember_key(const ArtifactDraft& draft,
                                                  const std::string& fingerprint,
                                                  const Artifact& artifact) {
  if (draft.idempotency_key.empty()) return;
  const std::int64_t now = to_unix_ms(artifact.created_at);
  index.prepare("DELETE FROM idempotency_keys WHERE created_ms<=?")
      .bind(now - std::chrono::milliseconds(limits::kIdempotencyKeyTime).count())
      .run();
  index
      .prepare(
          "INSERT INTO idempotency_keys(key, fingerprint, artifact_id, created_ms)"
          " VALUES(?, ?, ?, ?)")
      .bind(draft.idempotency_key)
      .bind(fingerprint)
      .bind(artifact.id.value)
      .bind(now)
      .run();
}

// The file `from` is synced already. It takes the place of an object that is there: what was just
// received is known to be right, and the other may have rotten since.
void FilesystemArtifactStore::State::place_object(const fs::path& from, const std::string& sha256) {
  const fs::path target = object(sha256);
  if (::mkdir(target.parent_path().c_str(), 0700) == 0) {
    fsync_directory(objects());
  } else if (errno != EEXIST) {
    throw_errno("cannot make", target.parent_path().string());
  }
  if (::rename(from.c_str(), target.c_str()) != 0) throw_errno("cannot place", target.string());
  fsync_directory(target.parent_path());
}

class FilesystemArtifactStore::Upload final : public ArtifactUpload {
 public:
  explicit Upload(State& state)
      : state_(state),
        path_(state.temporary() / ("upload." + random_hex(16))),
        file_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) {
    if (!file_) throw_errno("cannot create", path_.string());
  }
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;
  ~Upload() override { unlink_quietly(path_); }  // gone already when it was published

  void write(std::string_view piece) override {
    if (piece.size() > limits::kArtifactBytes - digest_.size_bytes) {
      throw ResourceLimitError("an artifact has at most " + std::to_string(limits::kArtifactBytes) +
                               " bytes");
    }
    write_all(file_.get(), piece);
    hash_.update(piece);
    digest_.size_bytes += piece.size();
  }

  ContentDigest finish() override {
    digest_.sha256 = hash_.finish_hex();
    return digest_;
  }

  Artifact publish(const ArtifactDraft& draft) override {
    NECROCODE_CHECK(digest_.sha256.size() == kDigestCharacters && !published_);
    if (::fsync(file_.get()) != 0) throw_errno("cannot sync", path_.string());
    const std::string fingerprint = fingerprint_of(draft, digest_.sha256);
    std::lock_guard guard(state_.mutex);
    auto first = state_.first_answer(draft, fingerprint);
    Artifact artifact = first ? *std::move(first) : state_.named(draft);
    artifact.size_bytes = digest_.size_bytes;
    artifact.sha256 = digest_.sha256;
    if (first) return artifact;

    UndecidedObjects undecided(state_);
    undecided.add(digest_.sha256);
    const auto replaced = state_.replaced_by(draft);
    if (replaced && !replaced->sha256.empty()) undecided.add(replaced->sha256);
    state_.place_object(path_, digest_.sha256);
    state_.insert(artifact, draft, fingerprint);
    if (replaced) state_.drop_log(replaced->id);
    published_ = true;
    return artifact;
  }

 private:
  State& state_;
  const fs::path path_;
  FileDescriptor file_;
  Sha256 hash_;
  ContentDigest digest_;
  bool published_ = false;
};

FilesystemArtifactStore::FilesystemArtifactStore(const fs::path& directory, const Clock& clock) {
  make_directory(directory);
  state_ = std::make_unique<State>(directory, clock);
  make_directory(state_->objects());
  make_directory(state_->temporary());
  make_directory(state_->logs_folder());
  state_->index.migrate({kSchema, kLogSchema});
  state_->reader = std::make_unique<db::Database>(directory / "index.sqlite");
  state_->sweep();
  state_->load_logs();
  fsync_directory(directory);
}

std::unique_ptr<ArtifactUpload> FilesystemArtifactStore::begin_upload() {
  return std::make_unique<Upload>(*state_);
}

// The log is looked up first: when it is not there, the row does not say that it is open.
std::optional<Artifact> FilesystemArtifactStore::find(const ArtifactId& id) {
  const auto log = state_->logs.find(id.value);
  std::lock_guard guard(state_->reader_mutex);
  db::Statement& query =
      state_->reader->prepare("SELECT " + std::string(kColumns) + " FROM artifacts WHERE id=?");
  query.bind(id.value);
  if (!query.step()) return std::nullopt;
  Artifact artifact = artifact_from(query);
  query.reset();
  if (log && !artifact.sealed) artifact.size_bytes = log->size;
  return artifact;
}

std::optional<StoredBytes> FilesystemArtifactStore::open(const Artifact& artifact) {
  if (const auto log = state_->logs.find(artifact.id.value)) {
    const fs::path path = state_->log_file(log->id);
    const std::uint64_t size = log->size;
    FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (file) return StoredBytes{std::move(file), size};
    if (errno != ENOENT) throw_errno("cannot open", path.string());
  }
  if (artifact.sha256.empty()) {  // it was sealed, or is gone, since it was looked up
    const auto now = find(artifact.id);
    if (!now) return std::nullopt;
    if (!now->sealed) {
      throw StorageError("artifact " + artifact.id.value + " is damaged: there is no file " +
                         state_->log_file(artifact.id.value).string());
    }
    return open(*now);
  }
  const fs::path path = state_->object(artifact.sha256);
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) {
    const int reason = errno;
    if (reason == ENOENT && !find(artifact.id)) return std::nullopt;
    errno = reason;
    throw_errno("artifact " + artifact.id.value + ": cannot open its object", path.string());
  }
  struct stat found = {};
  if (::fstat(file.get(), &found) != 0) throw_errno("cannot look at", path.string());
  if (static_cast<std::uint64_t>(found.st_size) != artifact.size_bytes) {
    throw StorageError("artifact " + artifact.id.value + " is damaged: its object " +
                       path.string() + " has " + std::to_string(found.st_size) +
                       " bytes instead of " + std::to_string(artifact.size_bytes));
  }
  return StoredBytes{std::move(file), artifact.size_bytes};
}

ArtifactList FilesystemArtifactStore::list(const ArtifactFilter& filter) {
  std::string sql = "SELECT " + std::string(kColumns) + " FROM artifacts WHERE seq<?";
  if (!filter.spec.empty()) sql += " AND spec=?";
  if (!filter.task.empty()) sql += " AND task=?";
  if (!filter.type.empty()) sql += " AND type=?";
  if (!filter.tag.empty()) sql += " AND seq IN (SELECT seq FROM artifact_tags WHERE tag=?)";
  if (filter.since) sql += " AND created_ms>=?";
  if (filter.until) sql += " AND created_ms<?";
  sql += " ORDER BY seq DESC LIMIT ?";

  std::unique_lock guard(state_->reader_mutex);
  db::Statement& query = state_->reader->prepare(sql);
  query.bind(filter.before);
  for (const std::string* text : {&filter.spec, &filter.task, &filter.type, &filter.tag}) {
    if (!text->empty()) query.bind(*text);
  }
  if (filter.since) query.bind(to_unix_ms(*filter.since));
  if (filter.until) query.bind(to_unix_ms(*filter.until));
  query.bind(static_cast<std::int64_t>(filter.limit) +
             1);  // one more tells whether there is a next

  ArtifactList list;
  std::int64_t last_seq = 0;
  while (query.step()) {
    if (list.items.size() == filter.limit) {
      list.next = last_seq;
      break;
    }
    list.items.push_back(artifact_from(query));
    last_seq = query.integer(kSeqColumn);
  }
  query.reset();
  guard.unlock();
  for (Artifact& item : list.items) {
    if (item.sealed) continue;
    if (auto now = find(item.id)) item = *std::move(now);
  }
  return list;
}

bool FilesystemArtifactStore::remove(const ArtifactId& id) {
  std::lock_guard guard(state_->mutex);
  db::Statement& query = state_->index.prepare("SELECT sha256 FROM artifacts WHERE id=?");
  query.bind(id.value);
  if (!query.step()) return false;
  const std::string sha256 = query.text(0);
  query.reset();
  UndecidedObjects undecided(*state_);
  if (!sha256.empty()) undecided.add(sha256);
  db::Transaction transaction(state_->index);
  state_->index.prepare("DELETE FROM artifacts WHERE id=?").bind(id.value).run();
  transaction.commit();
  state_->drop_log(id.value);
  return true;
}

std::optional<Artifact> FilesystemArtifactStore::set_tags(const ArtifactId& id,
                                                          const std::vector<std::string>& tags) {
  std::lock_guard guard(state_->mutex);
  db::Transaction transaction(state_->index);
  db::Statement& query =
      state_->index.prepare("SELECT " + std::string(kColumns) + " FROM artifacts WHERE id=?");
  query.bind(id.value);
  if (!query.step()) return std::nullopt;
  Artifact artifact = artifact_from(query);
  const std::int64_t seq = query.integer(kSeqColumn);
  query.reset();
  artifact.tags = tags;
  state_->index.prepare("UPDATE artifacts SET tags=? WHERE seq=?")
      .bind(Json(tags).dump())
      .bind(seq)
      .run();
  state_->index.prepare("DELETE FROM artifact_tags WHERE seq=?").bind(seq).run();
  state_->insert_tags(seq, tags);
  transaction.commit();
  const auto log = state_->logs.find(id.value);
  if (log && !artifact.sealed) artifact.size_bytes = log->size;
  return artifact;
}

// Open logs have no size in the index.
ArtifactUsage FilesystemArtifactStore::usage() {
  std::map<std::string, std::uint64_t> open;
  for (const auto& log : state_->logs.all()) open.emplace(log->id, log->size);

  std::lock_guard guard(state_->reader_mutex);
  std::map<std::pair<std::string, std::string>, std::uint64_t> grown;
  ArtifactUsage usage;
  db::Statement& logs =
      state_->reader->prepare("SELECT id, spec, type FROM artifacts WHERE lease_ms IS NOT NULL");
  while (logs.step()) {
    const std::uint64_t size = open[logs.text(0)];
    grown[{logs.text(1), logs.text(2)}] += size;
    usage.stored_bytes += size;
    ++usage.open_logs;
  }
  db::Statement& groups = state_->reader->prepare(
      "SELECT spec, type, COUNT(*), SUM(size_bytes) FROM artifacts GROUP BY spec, type ORDER BY 1, "
      "2");
  while (groups.step()) {
    ArtifactUsage::Group group{groups.text(0), groups.text(1),
                               static_cast<std::uint64_t>(groups.integer(2)),
                               static_cast<std::uint64_t>(groups.integer(3))};
    group.size_bytes += grown[{group.spec, group.type}];
    usage.count += group.count;
    usage.size_bytes += group.size_bytes;
    usage.groups.push_back(std::move(group));
  }
  db::Statement& stored = state_->reader->prepare(
      "SELECT COALESCE(SUM(size_bytes), 0) FROM (SELECT DISTINCT sha256, size_bytes FROM "
      "artifacts)");
  NECROCODE_CHECK(stored.step());
  usage.stored_bytes += static_cast<std::uint64_t>(stored.integer(0));
  stored.reset();
  return usage;
}

void FilesystemArtifactStore::check() {
  {
    std::lock_guard guard(state_->reader_mutex);
    db::Statement& query = state_->reader->prepare("SELECT COUNT(*) FROM artifacts WHERE seq=0");
    query.step();
    query.reset();
  }
  for (const fs::path& folder : {state_->objects(), state_->temporary(), state_->logs_folder()}) {
    if (::access(folder.c_str(), R_OK | W_OK | X_OK) != 0)
      throw_errno("cannot use", folder.string());
  }
}

}  // namespace necrocode::artifacts
