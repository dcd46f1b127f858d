// The schemas of the Task Registry's answers, for /openapi.json; a test holds every answer of the
// end-to-end tests against them.
#pragma once

#include "necrocode/net/api.hpp"

namespace necrocode::registry {

/// Of the body of POST /tasksets.
Json submission_schema();
void define_schemas(net::Api& api);

}  // namespace necrocode::registry
