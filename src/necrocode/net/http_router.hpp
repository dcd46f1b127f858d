// HttpRouter: from a method and decoded path segments to a route. Immutable while it is used.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/net/http_server.hpp"

namespace necrocode::net {

struct Route {
  std::string method;
  std::string pattern;
  Handler handler;
  RouteOptions options;
  struct Segment {
    std::string text;
    bool parameter = false;
  };
  std::vector<Segment> segments;
};

class HttpRouter {
 public:
  std::string unknown_path = "no such path";  ///< said of a path without a route
  /// A malformed pattern, and a route that is there already, are broken invariants.
  void add(std::string method, std::string pattern, Handler handler, RouteOptions options);

  struct Match {
    const Route* route = nullptr;
    std::map<std::string, std::string, std::less<>> params;
    std::string allow;  ///< without a route: the path's methods, empty when the path is unknown
  };
  Match match(std::string_view method, const std::vector<std::string>& segments) const;

 private:
  std::vector<std::unique_ptr<const Route>> routes_;
};

}  // namespace necrocode::net
