// LogShipper: brings the logs of this process's runs to the artifact store while they grow, on one
// thread of its own, so that a run can be watched, and a killed one leaves its log where others can
// read it. What it does not bring, the upload at the run's end does.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "necrocode/artifacts/client.hpp"

namespace necrocode::runner {

/// Thread-safe.
class LogShipper {
  struct Entry;

 public:
  /// `store` lives longer. A file that ends sooner than `every` is never begun in the store.
  explicit LogShipper(ArtifactStoreClient& store,
                      std::chrono::milliseconds every = std::chrono::seconds{1});
  ~LogShipper();

  /// A file under way; it stays as it is, unsealed, when this object goes.
  class Shipment {
   public:
    Shipment(LogShipper& shipper, std::shared_ptr<Entry> entry)
        : shipper_(&shipper), entry_(std::move(entry)) {}
    Shipment(Shipment&& other) noexcept
        : shipper_(std::exchange(other.shipper_, nullptr)), entry_(std::move(other.entry_)) {}
    Shipment& operator=(Shipment&&) = delete;
    ~Shipment() {
      if (shipper_) shipper_->drop(*entry_);
    }
    /// Brings the rest of the file and seals it. The artifact's uri; nothing when the store was
    /// never told of it, or lost it: then it is to be uploaded. Throws as seal_log() does.
    std::optional<std::string> seal(const CallContext& context);

   private:
    LogShipper* shipper_;
    std::shared_ptr<Entry> entry_;
  };
  /// `file` only grows; `metadata` as for ArtifactStoreClient::open_log().
  [[nodiscard]] Shipment ship(std::filesystem::path file, Json metadata);

 private:
  void drop(Entry& entry);
  void work(const std::stop_token& stop);

  ArtifactStoreClient& store_;
  const std::chrono::milliseconds every_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::list<std::shared_ptr<Entry>> entries_;  // guarded by mutex_
  std::jthread thread_;
};

}  // namespace necrocode::runner
