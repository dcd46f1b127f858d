// The stores that the suite is run with.
#include "conformance/model_task_store.hpp"
#include "conformance/task_store_suite.hpp"
#include "necrocode/registry/sqlite_store.hpp"

namespace necrocode::registry {

const std::vector<StoreFactory>& store_factories() {
  static const std::vector<StoreFactory> kFactories = {
      {"Sqlite",
       [](const std::filesystem::path& folder, const Clock& clock, const StoreOptions& options) {
         return std::make_unique<SqliteTaskStore>(folder / "registry.db", clock, options);
       }},
      // It copies all it knows for each change, and looks at all for each claim.
      {"Model",
       [](const std::filesystem::path&, const Clock& clock, const StoreOptions& options) {
         return std::make_unique<ModelTaskStore>(clock, options);
       },
       false, 200}};
  return kFactories;
}

}  // namespace necrocode::registry
