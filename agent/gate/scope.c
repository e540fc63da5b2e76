#include "agent/gate/scope.h"
