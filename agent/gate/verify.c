#include "agent/gate/verify.h"
