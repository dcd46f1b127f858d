// A store and the model under the same random commands.
#pragma once

#include <atomic>
#include <optional>

#include "conformance/model_task_store.hpp"
#include "conformance/random_side.hpp"
#include "conformance/task_store_suite.hpp"

namespace necrocode::registry {

struct Difference {
  std::size_t step = 0;  ///< the command after which it was seen
  std::string what;
};

/// Each answer of the store is compared with the model's, and what the store promised of the time
/// until do_due() and of its news; after every `check_every` commands, and at the end, all that can
/// be read. `model_options` only for a test of this test.
class RandomRun {
 public:
  RandomRun(const StoreFactory& factory, int check_every,
            const StoreOptions& model_options = options());
  /// Nothing: no difference.
  std::optional<Difference> run(const std::vector<Command>& commands);
  static const StoreOptions& options();

 private:
  struct News {
    std::atomic<bool> claimable{false};
    std::atomic<bool> due_sooner{false};
  };

  void open();
  std::string perform(const Command& command);
  std::string do_due();
  void note_vain_claims(const Command& command);
  std::string check_news();

  const StoreFactory& factory_;
  const int check_every_;
  TemporaryDirectory folder_;  // in memory where that can be: a crash is not the matter here
  ManualClock clock_;
  News news_;
  std::unique_ptr<TaskStore> store_;
  ModelTaskStore model_;
  std::optional<RandomSide> side_;
  RandomSide model_side_;
  Json answer_;  ///< the model's last
  /// Claims that found nothing since the last news of something; they may be waiting.
  std::vector<ClaimRequest> in_vain_;
  /// Until when do_due() has nothing to do, as it said; nothing while it was not asked.
  std::optional<std::optional<SteadyTime>> promised_;
};

}  // namespace necrocode::registry
