#include "agent/gate/policy.h"
