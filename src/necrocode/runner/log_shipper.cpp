#include "necrocode/runner/log_shipper.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::runner {
namespace {

constexpr std::size_t kPieceBytes = 64 * limits::kKiB;
constexpr int kPiecesAtOnce = 16;  // of one log, before the others have their turn
constexpr auto kCallTime = std::chrono::seconds(3);
constexpr auto kLease = ArtifactStoreClient::kDefaultLease;

std::string read_piece(const std::filesystem::path& path, std::uint64_t offset) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file) throw_errno("cannot open", path.string());
  std::string piece(kPieceBytes, '\0');
  ssize_t got = 0;
  do {
    got = ::pread(file.get(), piece.data(), piece.size(), static_cast<off_t>(offset));
  } while (got < 0 && errno == EINTR);
  if (got < 0) throw_errno("cannot read", path.string());
  piece.resize(static_cast<std::size_t>(got));
  return piece;
}

}  // namespace

struct LogShipper::Entry {
  std::filesystem::path file;
  Json metadata;
  std::mutex mutex;   ///< of what follows: one call about a log at a time
  std::string uri{};  ///< empty: not begun
  std::uint64_t offset = 0;
  SteadyTime renewed{};  ///< when the store heard of it last
  bool given_up = false;

  // Some pieces more; true when there may be others.
  bool bring(ArtifactStoreClient& store, int pieces, const CallContext& context) {
    for (; pieces > 0; --pieces) {
      const std::string piece = read_piece(file, offset);
      const SteadyTime now = real_clock().steady_now();
      // An empty one renews the lease of a log that a quiet command writes nothing to.
      if (piece.empty() && (uri.empty() || now - renewed < kLease / 3)) return false;
      if (uri.empty()) uri = store.open_log("log", metadata, kLease, context).uri;
      store.append_log(uri, offset, piece, context);
      offset += piece.size();
      renewed = now;
    }
    return true;
  }
};

LogShipper::LogShipper(ArtifactStoreClient& store, std::chrono::milliseconds every)
    : store_(store), every_(every), thread_([this](const std::stop_token& stop) { work(stop); }) {}

LogShipper::~LogShipper() {
  thread_.request_stop();
  wake_.notify_all();
}

LogShipper::Shipment LogShipper::ship(std::filesystem::path file, Json metadata) {
  auto entry = std::make_shared<Entry>();
  entry->file = std::move(file);
  entry->metadata = std::move(metadata);
  const std::lock_guard lock(mutex_);
  entries_.push_back(entry);
  return {*this, std::move(entry)};
}

void LogShipper::drop(Entry& entry) {
  const std::lock_guard lock(mutex_);
  entries_.remove_if([&entry](const auto& other) { return other.get() == &entry; });
}

void LogShipper::work(const std::stop_token& stop) {
  CallContext context;
  context.stop = stop;
  while (!stop.stop_requested()) {
    std::vector<std::shared_ptr<Entry>> all;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, stop, every_, [] { return false; });
      all.assign(entries_.begin(), entries_.end());
    }
    for (const auto& entry : all) {
      const std::lock_guard lock(entry->mutex);
      if (stop.stop_requested() || entry->given_up) continue;
      try {
        entry->bring(store_, kPiecesAtOnce, context.within(kCallTime));
      } catch (const TimeoutError&) {
        continue;  // out of reach for now
      } catch (const Unavailable&) {
        continue;
      } catch (const std::exception& error) {
        entry->given_up = true;
        log::warn("a run's log cannot be followed in the store; it is uploaded at the run's end",
                  {{"file", entry->file.string()}, {"error", error.what()}});
      }
    }
  }
}

std::optional<std::string> LogShipper::Shipment::seal(const CallContext& context) {
  shipper_->drop(*entry_);
  const std::lock_guard lock(entry_->mutex);
  if (entry_->uri.empty() || entry_->given_up) return std::nullopt;
  try {
    while (entry_->bring(shipper_->store_, kPiecesAtOnce, context)) continue;
    return shipper_->store_.seal_log(entry_->uri, entry_->offset, {}, context).uri;
  } catch (const Conflict&) {
    return std::nullopt;  // the store has lost some of it, or sealed it
  } catch (const NotFound&) {
    return std::nullopt;
  }
}

}  // namespace necrocode::runner
