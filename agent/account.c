#include "agent/account.h"
