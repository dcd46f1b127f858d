#include "necrocode/artifacts/filesystem_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>

#include "necrocode/base/check.hpp"
#include "necrocode/base/digest.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/db/sqlite.hpp"
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

constexpr std::string_view kColumns =
    "id, type, name, spec, task, size_bytes, sha256, created_ms, metadata, tags, seq";
constexpr int kSeqColumn = 10;
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
  return artifact;
}

// All that makes an upload what it is: the same key with another of these is a mistake.
std::string fingerprint_of(const ArtifactDraft& draft, const ContentDigest& digest) {
  return sha256_hex(Json(Json::Array{draft.type, draft.name, draft.spec, draft.task, draft.metadata,
                                     draft.tags, digest.sha256})
                        .dump());
}

void make_directory(const fs::path& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    throw_errno("cannot make", path.string());
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

}  // namespace

// Writes go through `index` under `mutex`, which also orders every appearance and disappearance of
// an object file against the rows that refer to it. Reads have a connection of their own: a
// download does not wait for somebody's sync.
struct FilesystemArtifactStore::State {
  State(const fs::path& root, const Clock& a_clock)
      : clock(a_clock),
        directory(root),
        lock(lock_directory(root)),
        index(root / "index.sqlite"),
        reader(nullptr) {}

  fs::path temporary() const { return directory / "tmp"; }
  fs::path objects() const { return directory / "objects"; }
  fs::path object(const std::string& sha256) const {
    return objects() / sha256.substr(0, 2) / sha256;
  }

  const Clock& clock;
  const fs::path directory;
  const FileDescriptor lock;
  std::mutex mutex;
  db::Database index;
  std::mutex reader_mutex;
  std::unique_ptr<db::Database> reader;

  bool is_referenced(const std::string& sha256);
  void sweep();
  std::optional<Artifact> first_answer(const ArtifactDraft& draft, const ContentDigest& digest,
                                       const std::string& fingerprint);
  std::optional<std::string> replaced_object(const ArtifactDraft& draft);
  void insert(const Artifact& artifact, const ArtifactDraft& draft);
  void insert_tags(std::int64_t seq, const std::vector<std::string>& tags);
  void remember_key(const ArtifactDraft& draft, const std::string& fingerprint,
                    const Artifact& artifact);
  void place_object(const fs::path& from, const ContentDigest& digest);
};

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

// Objects whose last reference is just coming or going. A marker file for each stands from before
// the index changes until the object's fate is done, so that a crash between the two leaves no
// orphan.
class FilesystemArtifactStore::UndecidedObjects {
 public:
  explicit UndecidedObjects(State& state) : state_(state) {}
  UndecidedObjects(const UndecidedObjects&) = delete;
  UndecidedObjects& operator=(const UndecidedObjects&) = delete;

  void add(const std::string& sha256) {
    const fs::path marker = state_.temporary() / (sha256 + "." + random_hex(8));
    FileDescriptor file(::open(marker.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) throw_errno("cannot create", marker.string());
    markers_.emplace_back(sha256, marker);
  }

  // Whatever became of the transaction, the index now tells which objects are needed.
  ~UndecidedObjects() {
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

 private:
  State& state_;
  std::vector<std::pair<std::string, fs::path>> markers_;
};

std::optional<Artifact> FilesystemArtifactStore::State::first_answer(
    const ArtifactDraft& draft, const ContentDigest& digest, const std::string& fingerprint) {
  if (draft.idempotency_key.empty()) return std::nullopt;
  db::Statement& query = index.prepare(
      "SELECT fingerprint, artifact_id, created_ms FROM idempotency_keys WHERE key=? AND "
      "created_ms>?");
  query.bind(draft.idempotency_key)
      .bind(to_unix_ms(clock.system_now() - limits::kIdempotencyKeyTime));
  if (!query.step()) return std::nullopt;
  const std::string known = query.text(0);
  Artifact first{ArtifactId{query.text(1)},
                 draft.type,
                 draft.name,
                 draft.spec,
                 draft.task,
                 digest.size_bytes,
                 digest.sha256,
                 from_unix_ms(query.integer(2)),
                 draft.metadata,
                 draft.tags};
  query.reset();
  if (known != fingerprint) {
    throw IdempotencyMismatch("the Idempotency-Key was used for another upload");
  }
  if (first.name.empty()) first.name = first.id.value;
  return first;
}

std::optional<std::string> FilesystemArtifactStore::State::replaced_object(
    const ArtifactDraft& draft) {
  if (draft.name.empty() || draft.task.empty()) return std::nullopt;
  db::Statement& query =
      index.prepare("SELECT sha256 FROM artifacts WHERE spec=? AND task=? AND type=? AND name=?");
  query.bind(draft.spec).bind(draft.task).bind(draft.type).bind(draft.name);
  if (!query.step()) return std::nullopt;
  std::string sha256 = query.text(0);
  query.reset();
  return sha256;
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

void FilesystemArtifactStore::State::insert(const Artifact& artifact, const ArtifactDraft& draft) {
  if (!draft.name.empty() && !draft.task.empty()) {
    index.prepare("DELETE FROM artifacts WHERE spec=? AND task=? AND type=? AND name=?")
        .bind(draft.spec)
        .bind(draft.task)
        .bind(draft.type)
        .bind(draft.name)
        .run();
  }
  index
      .prepare(
          "INSERT INTO artifacts(id, type, name, spec, task, size_bytes, sha256, created_ms,"
          " metadata, tags) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
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
      .run();
  insert_tags(index.last_insert_id(), artifact.tags);
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
void FilesystemArtifactStore::State::place_object(const fs::path& from,
                                                  const ContentDigest& digest) {
  const fs::path target = object(digest.sha256);
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
    const std::string fingerprint = fingerprint_of(draft, digest_);
    std::lock_guard guard(state_.mutex);
    if (auto first = state_.first_answer(draft, digest_, fingerprint)) return *first;

    Artifact artifact{ArtifactId{uuid7()}, draft.type,         draft.name,     draft.spec,
                      draft.task,          digest_.size_bytes, digest_.sha256, created_now(),
                      draft.metadata,      draft.tags};
    if (artifact.name.empty()) artifact.name = artifact.id.value;
    UndecidedObjects undecided(state_);
    undecided.add(digest_.sha256);
    if (const auto replaced = state_.replaced_object(draft)) undecided.add(*replaced);
    state_.place_object(path_, digest_);
    db::Transaction transaction(state_.index);
    state_.insert(artifact, draft);
    state_.remember_key(draft, fingerprint, artifact);
    transaction.commit();
    published_ = true;
    return artifact;
  }

 private:
  // In milliseconds as it is stored, so that the first answer and every later one say the same.
  SystemTime created_now() const { return from_unix_ms(to_unix_ms(state_.clock.system_now())); }

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
  state_->index.migrate({kSchema});
  state_->reader = std::make_unique<db::Database>(directory / "index.sqlite");
  state_->sweep();
  fsync_directory(directory);
}

FilesystemArtifactStore::~FilesystemArtifactStore() = default;

std::unique_ptr<ArtifactUpload> FilesystemArtifactStore::begin_upload() {
  return std::make_unique<Upload>(*state_);
}

std::optional<Artifact> FilesystemArtifactStore::find(const ArtifactId& id) {
  std::lock_guard guard(state_->reader_mutex);
  db::Statement& query =
      state_->reader->prepare("SELECT " + std::string(kColumns) + " FROM artifacts WHERE id=?");
  query.bind(id.value);
  if (!query.step()) return std::nullopt;
  Artifact artifact = artifact_from(query);
  query.reset();
  return artifact;
}

std::optional<StoredBytes> FilesystemArtifactStore::open(const Artifact& artifact) {
  const fs::path path = state_->object(artifact.sha256);
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) {
    const int reason = errno;
    if (reason == ENOENT && !find(artifact.id)) return std::nullopt;
    errno = reason;
    throw_errno("artifact " + artifact.id.value + ": cannot open its object", path.string());
  }
  struct stat found{};
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

  std::lock_guard guard(state_->reader_mutex);
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
  undecided.add(sha256);
  db::Transaction transaction(state_->index);
  state_->index.prepare("DELETE FROM artifacts WHERE id=?").bind(id.value).run();
  transaction.commit();
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
  return artifact;
}

ArtifactUsage FilesystemArtifactStore::usage() {
  ArtifactUsage usage;
  std::lock_guard guard(state_->reader_mutex);
  db::Statement& groups = state_->reader->prepare(
      "SELECT spec, type, COUNT(*), SUM(size_bytes) FROM artifacts GROUP BY spec, type ORDER BY 1, "
      "2");
  while (groups.step()) {
    ArtifactUsage::Group group{groups.text(0), groups.text(1),
                               static_cast<std::uint64_t>(groups.integer(2)),
                               static_cast<std::uint64_t>(groups.integer(3))};
    usage.count += group.count;
    usage.size_bytes += group.size_bytes;
    usage.groups.push_back(std::move(group));
  }
  db::Statement& stored = state_->reader->prepare(
      "SELECT COALESCE(SUM(size_bytes), 0) FROM (SELECT DISTINCT sha256, size_bytes FROM "
      "artifacts)");
  NECROCODE_CHECK(stored.step());
  usage.stored_bytes = static_cast<std::uint64_t>(stored.integer(0));
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
  for (const fs::path& folder : {state_->objects(), state_->temporary()}) {
    if (::access(folder.c_str(), R_OK | W_OK | X_OK) != 0)
      throw_errno("cannot use", folder.string());
  }
}

}  // namespace necrocode::artifacts
