#include "proto/jose.h"
