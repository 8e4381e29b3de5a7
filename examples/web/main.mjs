// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

import { app } from './app.mjs';
import { listen } from './listen.mjs';

listen(app);
